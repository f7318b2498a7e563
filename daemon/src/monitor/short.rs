//! Checks that this node lacks the means for: a command that its configuration does not know, descriptors, ports. Nothing is
//! held of an instance by such a look, so somebody must be told, and once is enough.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::id::ServiceName;
use baton_core::probe::LocalTime;

/// How long it is not told again of a check, however often it succeeds in between: a node at the edge of its descriptors
/// falls short with every other probe.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The checks of services that this node has fallen short of.
#[derive(Debug, Default)]
pub(super) struct Shortages(BTreeMap<(ServiceName, String), Shortage>);

#[derive(Debug)]
struct Shortage {
    told: LocalTime,
    /// The check has been carried out since.
    over: bool,
}

impl Shortages {
    /// This node lacked the means for a check. Answers whether that is news.
    pub(super) fn met(&mut self, service: &ServiceName, check: &str, now: LocalTime) -> bool {
        let fresh = Shortage { told: now, over: false };
        match self.0.get_mut(&(service.clone(), check.to_owned())) {
            None => {
                self.0.insert((service.clone(), check.to_owned()), fresh);
                true
            }
            Some(known) => {
                let news = known.over && now.since(known.told) >= TOLD_AGAIN_AFTER;
                if news {
                    *known = fresh;
                }
                known.over = false;
                news
            }
        }
    }

    /// A check was carried out.
    pub(super) fn carried_out(&mut self, service: &ServiceName, check: &str) {
        // As a rule there is no shortage at all, and this is asked with each probe.
        if !self.0.is_empty()
            && let Some(known) = self.0.get_mut(&(service.clone(), check.to_owned()))
        {
            known.over = true;
        }
    }

    /// The service is gone, or its checks are others now.
    pub(super) fn forget(&mut self, service: &ServiceName) {
        self.0.retain(|(known, _), _| known != service);
    }

    /// Checks for which the means are lacking now.
    pub(super) fn count(&self) -> usize {
        self.0.values().filter(|known| !known.over).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_news_once_and_again_when_it_was_over_for_a_while() {
        let at = |seconds| LocalTime(Duration::from_secs(seconds));
        let (web, disks): (ServiceName, ServiceName) =
            ("web".parse().expect("a name"), "disks".parse().expect("a name"));
        let mut short = Shortages::default();
        short.carried_out(&web, "raid");
        assert!(short.met(&web, "raid", at(1)));
        for second in 2..200 {
            assert!(!short.met(&web, "raid", at(second)), "not with every probe");
        }
        assert!(short.met(&web, "smart", at(200)) && short.met(&disks, "raid", at(200)), "each check by itself");
        assert_eq!(short.count(), 3);

        short.carried_out(&web, "raid");
        assert_eq!(short.count(), 2);
        assert!(short.met(&web, "raid", at(201)), "it was long ago, and over in between");
        short.carried_out(&web, "raid");
        assert!(!short.met(&web, "raid", at(202)), "it comes and goes");
        assert_eq!(short.count(), 3, "and counts all the same");

        short.forget(&web);
        assert_eq!(short.count(), 1);
        assert!(short.met(&web, "raid", at(203)), "other checks, other news");
    }
}
