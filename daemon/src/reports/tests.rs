//! What becomes of reports on the node that hears them, before anything is told.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use baton_core::apply::apply_batch;
use baton_core::calls::BreakerNumbers;
use baton_core::command::{Batch, BreakerTrip, Command, InstancePut, ServicePut};
use baton_core::policy::{Registration, Spec};
use baton_core::state::State;
use baton_core::time::{ClusterTime, WallTime};
use tokio::net::TcpListener;

use super::*;
use crate::consensus::{ConsensusConfig, Tuning};
use crate::store::Store;

fn orders() -> ServiceName {
    "orders".parse().expect("a name")
}

/// A service with the instance `a`, whose breaker opened: its generation is 2.
fn state() -> State {
    let (instance, actor): (InstanceId, _) = ("a".parse().expect("a name"), "test".to_owned());
    let registration = Box::new(Registration::at(Some("127.0.0.1:80".parse().expect("an address"))));
    let numbers = BreakerNumbers { consecutive_failures: 5, calls: 5, failures: 5, class: None };
    let commands = vec![
        Command::ServicePut(ServicePut {
            service: orders(),
            spec: Box::new(Spec::default()),
            if_generation: None,
            actor: actor.clone(),
        }),
        Command::InstancePut(InstancePut {
            service: orders(),
            instance: instance.clone(),
            registration,
            session: String::new(),
            if_generation: None,
            actor,
        }),
        Command::BreakerTrip(BreakerTrip { service: orders(), instance, generation: 1, numbers }),
    ];
    let mut state = State::default();
    let applied = apply_batch(&mut state, 1, &Batch { time: ClusterTime(1), wall: WallTime(0), commands });
    assert!(applied.replies.iter().all(Result::is_ok), "{:?}", applied.replies);
    state
}

const fn failed(instance: &str, generation: Option<u64>) -> Report<'_> {
    Report { instance, outcome: Some(CallOutcome::Timeout), status: None, latency: None, count: 1, generation }
}

#[test]
fn a_generation_that_has_not_been_is_looked_up_and_then_summed_nowhere() {
    let state = state();
    let service = state.service(&orders()).expect("it is there");
    for (report, known, accepted) in [
        (failed("a", None), true, true),
        (failed("a", Some(2)), true, true),
        (failed("a", Some(1)), true, false),
        (failed("a", Some(3)), false, false),
        (failed("b", None), false, false),
    ] {
        assert_eq!(all_known(service, std::slice::from_ref(&report)), known, "{report:?}");
        let (lines, answer) = sum(service, std::slice::from_ref(&report));
        assert_eq!((lines.len(), answer.accepted), (usize::from(accepted), u64::from(accepted)), "{report:?}");
    }
    let made_up: Vec<_> = (3..10_003).map(|generation| failed("a", Some(generation))).collect();
    let (lines, answer) = sum(service, &made_up);
    assert_eq!((lines.len(), answer.dropped_total), (0, 10_000), "whatever is made up takes no room");
    let why = &answer.dropped[0].reason;
    assert_eq!(why, "it names generation 3 of the breaker, which is only at 2");
}

#[tokio::test]
async fn where_there_is_no_leader_nobody_waits_for_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = Store::open(dir.path(), 1).await.expect("a store");
    let peer_listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let own = peer_listener.local_addr().expect("an address").to_string();
    // Nobody is at the other two addresses.
    let members = BTreeMap::from([(1, own), (2, "127.0.0.1:1".to_owned()), (3, "127.0.0.1:2".to_owned())]);
    let config = ConsensusConfig { members, peer_listener, tuning: Tuning::default() };
    let consensus = Consensus::start(config, opened).await.expect("it starts");
    let (reports, _task) = Reports::new(consensus.clone());
    let begin = Instant::now();
    assert!(reports.take(&orders(), &[failed("a", None)]).await.is_none(), "it knows no such service");
    let took = begin.elapsed();
    assert!(took < BEHIND_FOR / 2, "{took:?}: there is nobody to ask");
    consensus.shutdown().await;
}
