//! From an address as it was registered to the IP addresses that are probed. Names are looked up off the scheduler, once
//! for all who ask, and remembered for a short while; a probe goes to the addresses that were judged here and nowhere
//! else, so that a name cannot change its meaning between the judgement and the connection.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::probe::{FailureClass, LocalTime};
use tokio::sync::{Semaphore, watch};

use super::fault::Fault;
use crate::clock::Clock;

/// How long a found name is believed without asking again.
const FRESH: Duration = Duration::from_secs(10);

/// How long a found name is still used while asking again is under way or fails: a name server that is down for a
/// minute must not take every instance with it.
const STALE: Duration = Duration::from_secs(300);

/// How long a failed lookup is remembered, so that a dead name is not asked for at each probe.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// The most lookups at once: each takes a thread while it lasts.
const LOOKUPS_MAX: usize = 8;

/// The most addresses of one name that are tried.
pub(crate) const ADDRESSES_MAX: usize = 4;

/// The most names remembered: as many as a cluster's instances can reasonably have.
const NAMES_MAX: usize = 20_000;

/// The metadata services of clouds that are not link-local: AWS over IPv6, Alibaba.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

/// Whether an address may never be probed: link-local and metadata services, in whatever disguise. A registration must
/// not turn the cluster into a way to a cloud's credentials.
pub(crate) fn denied(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4 == METADATA_V4,
        IpAddr::V6(v6) => {
            // NAT64's well-known prefix carries an IPv4 address (RFC 6052).
            let translated = match v6.segments() {
                [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
                _ => None,
            };
            v6.is_unicast_link_local() || v6 == METADATA_V6 || translated.is_some_and(|v4| denied(IpAddr::V4(v4)))
        }
    }
}

/// What a lookup found, or why it found nothing.
type Found = Result<Arc<[IpAddr]>, Arc<str>>;

#[derive(Debug, Default)]
struct Name {
    /// The last answer that was good, and when it came.
    good: Option<(Arc<[IpAddr]>, LocalTime)>,
    /// The last failure, and when.
    failed: Option<(Arc<str>, LocalTime)>,
    /// The lookup under way.
    asking: Option<watch::Receiver<Option<Found>>>,
}

/// The names that this node's probes need.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    clock: Clock,
    names: Arc<Mutex<HashMap<String, Name>>>,
    lookups: Arc<Semaphore>,
}

/// What to do about a name, decided under the lock and done outside it.
enum Next {
    Use(Found),
    Wait(watch::Receiver<Option<Found>>),
}

impl Resolver {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, names: Arc::default(), lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// The addresses of `host` that may be probed, at least one.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Arc<[IpAddr]>, Fault> {
        let found = match host.parse::<IpAddr>() {
            Ok(ip) => Arc::from([ip]),
            Err(_) => self.look_up(host).await.map_err(|why| {
                Fault::target(FailureClass::Connection, format!("\"{host}\" was not resolved: {why}"))
            })?,
        };
        let allowed: Arc<[IpAddr]> = found.iter().copied().filter(|ip| !denied(*ip)).collect();
        match (allowed.is_empty(), found.first()) {
            (true, Some(ip)) => Err(Fault::target(
                FailureClass::Connection,
                format!("{ip} is on the deny-list (link-local and metadata addresses are never connected to)"),
            )),
            (true, None) => {
                Err(Fault::target(FailureClass::Connection, format!("\"{host}\" was not resolved: it has no address")))
            }
            (false, _) => Ok(allowed),
        }
    }

    async fn look_up(&self, host: &str) -> Found {
        let next = self.next(host);
        match next {
            Next::Use(found) => found,
            Next::Wait(mut asking) => {
                let found = asking.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
                found.unwrap_or_else(|| Err("the lookup was given up".into()))
            }
        }
    }

    fn next(&self, host: &str) -> Next {
        let now = self.clock.now();
        let mut names = lock(&self.names);
        if names.len() >= NAMES_MAX && !names.contains_key(host) {
            make_room(&mut names);
        }
        let name = names.entry(host.to_owned()).or_default();
        let fresh = name.good.as_ref().is_some_and(|(_, at)| now.since(*at) < FRESH);
        let failed = name.failed.as_ref().filter(|(_, at)| now.since(*at) < FAILED_FOR).map(|(why, _)| why.clone());
        if !fresh && failed.is_none() && name.asking.is_none() {
            name.asking = Some(self.ask(host.to_owned()));
        }
        let usable = name.good.as_ref().filter(|(_, at)| now.since(*at) < STALE).map(|(ips, _)| ips.clone());
        match (usable, failed, &name.asking) {
            (Some(ips), _, _) => Next::Use(Ok(ips)),
            (None, Some(why), _) => Next::Use(Err(why)),
            (None, None, Some(asking)) => Next::Wait(asking.clone()),
            (None, None, None) => Next::Use(Err("nobody asked".into())),
        }
    }

    /// Starts a lookup that outlives the probe that wanted it: its thread cannot be called back anyway.
    fn ask(&self, host: String) -> watch::Receiver<Option<Found>> {
        let (told, asking) = watch::channel(None);
        let this = self.clone();
        tokio::spawn(async move {
            // The semaphore is never closed; were it, the lookup would be one too many, not one too few.
            let permit = this.lookups.acquire().await.ok();
            // The port plays no part; the lookup wants one.
            let answer = tokio::net::lookup_host((host.as_str(), 0)).await;
            drop(permit);
            let found = addresses_of(answer);
            let now = this.clock.now();
            if let Some(name) = lock(&this.names).get_mut(&host) {
                name.asking = None;
                match &found {
                    Ok(ips) => {
                        name.good = Some((ips.clone(), now));
                        name.failed = None;
                    }
                    Err(why) => name.failed = Some((why.clone(), now)),
                }
            }
            // Nobody may be waiting any more.
            let _ = told.send(Some(found));
        });
        asking
    }
}

/// Forgets the name that was found longest ago, or never; one that is being asked for comes back by itself.
fn make_room(names: &mut HashMap<String, Name>) {
    let found = |name: &Name| name.good.as_ref().map(|(_, at)| *at);
    let oldest = names.iter().min_by_key(|(_, name)| found(name)).map(|(host, _)| host.clone());
    if let Some(host) = oldest {
        names.remove(&host);
    }
}

fn addresses_of(answer: io::Result<impl Iterator<Item = std::net::SocketAddr>>) -> Found {
    let mut ips: Vec<IpAddr> = Vec::new();
    for address in answer.map_err(|error| Arc::<str>::from(error.to_string()))? {
        if ips.len() < ADDRESSES_MAX && !ips.contains(&address.ip()) {
            ips.push(address.ip());
        }
    }
    Ok(ips.into())
}

/// Entries are replaced whole: a panic elsewhere cannot have left one half written.
fn lock(names: &Mutex<HashMap<String, Name>>) -> MutexGuard<'_, HashMap<String, Name>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_are_denied_in_every_disguise() {
        for bad in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            assert!(denied(bad.parse().expect(bad)), "{bad}");
        }
        for good in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1", "2001:db8::1", "8.8.8.8", "169.253.0.1"]
        {
            assert!(!denied(good.parse().expect(good)), "{good}");
        }
    }

    #[test]
    fn the_name_found_longest_ago_makes_room() {
        let found =
            |at: u64| Name { good: Some((Arc::from([]), LocalTime(Duration::from_secs(at)))), ..Name::default() };
        let mut names = HashMap::from(
            [("a", found(5)), ("b", found(3)), ("c", Name::default())].map(|(host, name)| (host.to_owned(), name)),
        );
        make_room(&mut names);
        assert!(!names.contains_key("c"), "one that was never found goes first");
        make_room(&mut names);
        assert!(names.contains_key("a") && names.len() == 1);
    }

    #[tokio::test]
    async fn literals_need_no_lookup_and_denied_ones_say_so() {
        let resolver = Resolver::new(Clock);
        assert_eq!(resolver.addresses("127.0.0.1").await.map(|ips| ips.len()), Ok(1));
        let Err(Fault::Target { class, detail }) = resolver.addresses("169.254.169.254").await else {
            panic!("the metadata service must be refused");
        };
        assert_eq!(class, FailureClass::Connection);
        assert!(detail.contains("deny-list"), "{detail}");
        assert!(lock(&resolver.names).is_empty());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_who_ask() {
        let resolver = Resolver::new(Clock);
        let (a, b) = tokio::join!(resolver.addresses("localhost"), resolver.addresses("localhost"));
        assert!(a.as_ref().is_ok_and(|ips| ips.iter().all(IpAddr::is_loopback)), "{a:?}");
        assert_eq!(a, b);
        let names = lock(&resolver.names);
        assert!(names["localhost"].good.is_some() && names["localhost"].asking.is_none());
    }
}
