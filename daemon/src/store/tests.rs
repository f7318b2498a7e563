//! The store's promises: what was acknowledged is there after a restart, one process and one node own a directory, rows
//! and state are one, and a snapshot carries everything.

use std::path::Path;
use std::time::Duration;

use baton_core::command::{Batch, Command, InstancePut, ServicePut};
use baton_core::policy::{Registration, Spec};
use baton_core::time::{ClusterTime, WallTime};
use futures_util::stream;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, LogId, Membership, StorageError, Vote};

use super::*;

const NODE: NodeId = 1;

struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Fresh {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let opened = Store::open_without_log(dir.path(), NODE).await.expect("opens");
        Ok((dir, opened.log, opened.machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_own_suite_passes() {
    Suite::test_all(Fresh).await.expect("the suite passes");
}

fn service_put(name: &str) -> Command {
    Command::ServicePut(ServicePut {
        service: name.parse().expect("a name"),
        spec: Box::new(Spec::default()),
        if_generation: None,
        actor: "test".to_owned(),
    })
}

fn instance_put(service: &str, instance: &str) -> Command {
    Command::InstancePut(InstancePut {
        service: service.parse().expect("a name"),
        instance: instance.parse().expect("a name"),
        registration: Box::new(Registration::at("127.0.0.1:80".parse().ok())),
        session: String::new(),
        if_generation: None,
        actor: "test".to_owned(),
    })
}

fn commands(index: u64, commands: Vec<Command>) -> Entry {
    let batch = Batch { time: ClusterTime(index * 10), wall: WallTime(1_000 + index.cast_signed()), commands };
    entry(index, EntryPayload::Normal(Proposal::new(batch).expect("encodes")))
}

fn entry(index: u64, payload: EntryPayload<Proposal, u64, PeerNode>) -> Entry {
    Entry { log_id: LogId::new_term_index(1, index), payload }
}

/// A history: a membership, a service with instances, one instance removed again by a compaction-free path, a
/// compaction of the first event.
fn history() -> Vec<Entry> {
    let nodes = [(NODE, PeerNode { peer: "127.0.0.1:1".to_owned() })];
    let membership = Membership::new([[NODE].into()].to_vec(), std::collections::BTreeMap::from(nodes)).expect("valid");
    let mut entries = vec![
        entry(0, EntryPayload::Membership(membership)),
        entry(1, EntryPayload::Blank),
        commands(2, vec![service_put("orders"), instance_put("orders", "a"), instance_put("orders", "b")]),
    ];
    for index in 3..100 {
        entries.push(commands(index, vec![instance_put("orders", &format!("i-{index}"))]));
    }
    entries.push(commands(100, vec![Command::EventsCompact { through: 1 }]));
    entries
}

async fn apply(machine: &mut StateMachine, entries: Vec<Entry>) {
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    machine.apply(stream::iter(items)).await.expect("applies");
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    let (done, flushed) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(done)).await.expect("queues");
    flushed.await.expect("answered").expect("flushed");
}

/// Votes and appends what is then applied, as openraft does: a state without its log is refused at the next start.
async fn voted_and_appended(log: &mut LogStore) {
    log.save_vote(&Vote::new_committed(1, NODE)).await.expect("saved");
    append(log, history()).await;
}

/// Drops everything and waits until the directory is free, as a process that ends does.
async fn close(opened: Opened) {
    let released = opened.released.clone();
    drop(opened);
    tokio::time::timeout(Duration::from_secs(10), released.cancelled()).await.expect("the directory is let go of");
}

fn hash(opened: &Opened) -> String {
    opened.reader.view().state.hash().expect("hashes")
}

async fn all_events(reader: &StateReader, after: u64) -> Vec<(u64, bytes::Bytes)> {
    let mut found = Vec::new();
    let mut after = after;
    loop {
        let page = reader.events().after(after, 7).await.expect("there");
        let Some(last) = page.last() else { return found };
        after = last.revision;
        found.extend(page.iter().map(|event| (event.revision, event.json.clone())));
    }
}

#[tokio::test]
async fn the_log_and_the_vote_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut opened = Store::open(dir.path(), NODE).await.expect("opens");
    let vote = Vote::new(7, 3);
    opened.log.save_vote(&vote).await.expect("saves");
    append(&mut opened.log, history()).await;
    opened.log.truncate_after(Some(LogId::new_term_index(1, 90))).await.expect("truncates");
    opened.log.save_committed(Some(LogId::new_term_index(1, 80))).await.expect("queues");
    opened.log.purge(LogId::new_term_index(1, 20)).await.expect("purges");
    close(opened).await;

    let mut opened = Store::open(dir.path(), NODE).await.expect("opens again");
    assert_eq!(opened.log.read_vote().await.expect("reads"), Some(vote));
    assert_eq!(opened.log.read_committed().await.expect("reads"), Some(LogId::new_term_index(1, 80)));
    let state = opened.log.get_log_state().await.expect("reads");
    assert_eq!(state.last_purged_log_id, Some(LogId::new_term_index(1, 20)));
    assert_eq!(state.last_log_id, Some(LogId::new_term_index(1, 90)));
    let kept = opened.log.try_get_log_entries(0..1_000).await.expect("reads");
    assert_eq!(kept, history()[21..=90].to_vec());
}

#[tokio::test]
async fn a_second_process_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let opened = Store::open(dir.path(), NODE).await.expect("opens");
    let refused = Store::open(dir.path(), NODE).await.expect_err("refused").to_string();
    assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
    assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
    assert!(refused.contains("--data-dir"), "{refused}");
    close(opened).await;
    Store::open(dir.path(), NODE).await.expect("free again");
}

#[tokio::test]
async fn another_nodes_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    close(Store::open(dir.path(), NODE).await.expect("opens")).await;
    let refused = Store::open(dir.path(), 2).await.expect_err("refused");
    assert!(matches!(refused, StoreError::OtherNode { found: NODE, wanted: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("--node-id 1"), "{refused}");
}

#[tokio::test]
async fn a_log_with_a_hole_is_corruption() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut opened = Store::open(dir.path(), NODE).await.expect("opens");
    append(&mut opened.log, history()).await;
    close(opened).await;
    let mut conn = sql::open_writer(&dir.path().join("raft.db"), sql::Durability::Full).await.expect("opens");
    sql::run(&mut conn, "DELETE FROM log WHERE idx = 50".to_owned()).await.expect("deletes");
    sql::close(conn).await;
    let refused = Store::open(dir.path(), NODE).await.expect_err("refused").to_string();
    assert!(refused.contains("before entry 51"), "{refused}");
}

#[tokio::test]
async fn a_lost_log_beside_a_state_is_corruption() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut opened = Store::open_without_log(dir.path(), NODE).await.expect("opens");
    apply(&mut opened.machine, history()).await;
    close(opened).await;
    for file in ["raft.db", "raft.db-wal", "raft.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(file));
    }
    let refused = Store::open(dir.path(), NODE).await.expect_err("refused");
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn a_log_that_went_back_in_time_is_refused() {
    for forgets in ["DELETE FROM log WHERE idx > 50", "DELETE FROM marks WHERE key = 'vote'"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut opened = Store::open(dir.path(), NODE).await.expect("opens");
        voted_and_appended(&mut opened.log).await;
        apply(&mut opened.machine, history()).await;
        let path = opened.dir.raft_db();
        close(opened).await;
        let mut conn = sql::open_writer(&path, sql::Durability::Full).await.expect("opens");
        sql::run(&mut conn, forgets.to_owned()).await.expect("forgets");
        sql::close(conn).await;
        let refused = Store::open(dir.path(), NODE).await.expect_err("refused");
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{forgets}: {refused}");
    }
}

#[tokio::test]
async fn the_state_file_is_never_ahead_of_the_log() {
    // Two others have committed what this node's own disk is still busy with: it applies it, and dies.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut opened = Store::open(dir.path(), NODE).await.expect("opens");
    opened.log.save_vote(&Vote::new_committed(1, NODE)).await.expect("saved");
    append(&mut opened.log, history()[..=50].to_vec()).await;
    apply(&mut opened.machine, history()).await;
    assert_eq!(opened.reader.view().applied_index, 100, "readers see what a majority holds");
    let flushed = tokio::time::timeout(Duration::from_millis(300), opened.machine.flush()).await;
    assert!(flushed.is_err(), "the file waits for the log");
    let mut conn = sql::open_reader(&opened.dir.state_db()).await.expect("opens");
    let applied: Option<Option<EntryId>> = sql::mark(&mut conn, "applied").await.expect("reads");
    assert!(applied.flatten().is_none_or(|applied| applied.index <= 50), "{applied:?}");
    sql::close(conn).await;
    append(&mut opened.log, history()[51..=100].to_vec()).await;
    opened.machine.flush().await.expect("the log holds it now");
    close(opened).await;
    assert_eq!(Store::open(dir.path(), NODE).await.expect("opens").reader.view().applied_index, 100);
}

#[tokio::test]
async fn rows_and_state_are_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut opened = Store::open(dir.path(), NODE).await.expect("opens");
    let mut changes = opened.reader.changes();
    voted_and_appended(&mut opened.log).await;
    apply(&mut opened.machine, history()).await;
    assert!(matches!(changes.try_recv(), Ok(Changed::Objects(objects)) if objects.len() > 90));
    let (before, events) = (hash(&opened), all_events(&opened.reader, 1).await);
    assert_eq!(opened.reader.view().applied_index, 100);
    assert_eq!(opened.reader.events().last(), events.last().expect("some").0);
    let forgotten = opened.reader.events().after(0, 10).await.expect_err("compacted");
    assert!(matches!(forgotten, EventsError::Compacted { through: 1 }));
    close(opened).await;

    let mut opened = Store::open(dir.path(), NODE).await.expect("opens again");
    assert_eq!(hash(&opened), before);
    // From the table now, byte for byte what came from memory.
    assert_eq!(all_events(&opened.reader, 1).await, events);
    let (applied, membership) = opened.machine.applied_state().await.expect("reads");
    assert_eq!(applied, Some(LogId::new_term_index(1, 100)));
    assert_eq!(membership.log_id(), &Some(LogId::new_term_index(1, 0)));

    // And it goes on from there, memory and table joining without a gap.
    apply(&mut opened.machine, vec![commands(101, vec![instance_put("orders", "late")])]).await;
    let now = all_events(&opened.reader, 1).await;
    assert_eq!(now.len(), events.len() + 1);
    assert!(now.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
}

async fn built(from: &Path) -> (Opened, Snapshot) {
    let mut opened = Store::open_without_log(from, NODE).await.expect("opens");
    apply(&mut opened.machine, history()).await;
    let snapshot = opened.machine.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    assert_eq!(snapshot.meta.last_log_id, Some(LogId::new_term_index(1, 100)));
    (opened, snapshot)
}

#[tokio::test]
async fn a_snapshot_carries_state_and_events() {
    let (here, there) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    let (source, snapshot) = built(here.path()).await;
    // What is applied after the build is not in it.
    let mut target = Store::open_without_log(there.path(), 2).await.expect("opens");
    target.log.save_vote(&Vote::new_committed(1, NODE)).await.expect("saved");
    apply(&mut target.machine, vec![commands(2, vec![service_put("stale")])]).await;
    let mut changes = target.reader.changes();

    let received = target.dir.snapshot_in_the_making("received");
    std::fs::copy(&snapshot.snapshot.path, &received).expect("copies");
    let file = SnapshotFile::open(&received).expect("opens");
    target.machine.install_snapshot(&snapshot.meta, file).await.expect("installs");

    assert_eq!(hash(&target), hash(&source));
    assert_eq!(all_events(&target.reader, 1).await, all_events(&source.reader, 1).await);
    assert!(matches!(changes.try_recv(), Ok(Changed::Everything)));
    assert_eq!(*target.reader.watch().borrow(), 100);
    let current = target.machine.get_current_snapshot().await.expect("reads").expect("there");
    assert_eq!(current.meta, snapshot.meta);

    let before = hash(&target);
    close(target).await;
    assert_eq!(hash(&Store::open(there.path(), 2).await.expect("opens again")), before);
}

#[tokio::test]
async fn a_damaged_snapshot_changes_nothing() {
    let (here, there) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    let (_source, snapshot) = built(here.path()).await;
    let mut target = Store::open(there.path(), 2).await.expect("opens");
    let before = hash(&target);
    let received = target.dir.snapshot_in_the_making("received");
    let mut bytes = std::fs::read(&snapshot.snapshot.path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    std::fs::write(&received, bytes).expect("writes");
    let file = SnapshotFile::open(&received).expect("opens");
    target.machine.install_snapshot(&snapshot.meta, file).await.expect_err("refused");
    assert_eq!(hash(&target), before);
    assert!(target.fatal.reason().is_some(), "the node stops rather than go on without what its leader sent");
}

#[tokio::test]
async fn a_state_behind_the_purged_log_is_mended_from_the_snapshot() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let young = dir.path().join("young.db");
    let mut opened = Store::open(dir.path(), NODE).await.expect("opens");
    voted_and_appended(&mut opened.log).await;
    apply(&mut opened.machine, history()[..=10].to_vec()).await;
    opened.machine.flush().await.expect("written");
    // What a power loss can leave: the state file as it was a while ago.
    let mut conn = sql::open_reader(&dir.path().join("state.db")).await.expect("opens");
    sql::vacuum_into(&mut conn, &young).await.expect("copies");
    sql::close(conn).await;
    apply(&mut opened.machine, history()[11..=100].to_vec()).await;
    let wanted = hash(&opened);
    opened.machine.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    opened.log.save_committed(Some(LogId::new_term_index(1, 100))).await.expect("queues");
    opened.log.purge(LogId::new_term_index(1, 90)).await.expect("purges");
    close(opened).await;
    for file in ["state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(file));
    }
    std::fs::rename(&young, dir.path().join("state.db")).expect("goes back in time");

    let mut opened = Store::open(dir.path(), NODE).await.expect("opens again");
    assert_eq!(opened.reader.view().applied_index, 10);
    // What openraft does at start.
    let mut helper = openraft::StorageHelper::new(&mut opened.log, &mut opened.machine).with_id(NODE);
    helper.get_initial_state().await.expect("mends");
    assert_eq!(opened.reader.view().applied_index, 100);
    assert_eq!(hash(&opened), wanted);
}

#[tokio::test]
async fn building_does_not_hold_up_applying() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut opened, _) = built(dir.path()).await;
    let mut builder = opened.machine.get_snapshot_builder().await;
    let building = tokio::spawn(async move { builder.build_snapshot().await });
    for index in 101..140 {
        apply(&mut opened.machine, vec![commands(index, vec![instance_put("orders", &format!("x-{index}"))])]).await;
    }
    let snapshot = building.await.expect("ends").expect("builds");
    let covered = snapshot.meta.last_log_id.expect("covers something").index;
    // Whatever it covers, it says so itself: its rows are those of that very index.
    let fresh = tempfile::tempdir().expect("another");
    let mut replayed = Store::open_without_log(fresh.path(), NODE).await.expect("opens");
    apply(&mut replayed.machine, history()).await;
    for index in 101..=covered {
        apply(&mut replayed.machine, vec![commands(index, vec![instance_put("orders", &format!("x-{index}"))])]).await;
    }
    let there = tempfile::tempdir().expect("a third");
    let mut target = Store::open_without_log(there.path(), NODE).await.expect("opens");
    let received = target.dir.snapshot_in_the_making("received");
    std::fs::copy(&snapshot.snapshot.path, &received).expect("copies");
    let file = SnapshotFile::open(&received).expect("opens");
    target.machine.install_snapshot(&snapshot.meta, file).await.expect("installs");
    assert_eq!(hash(&target), hash(&replayed));
}

#[tokio::test]
async fn purged_rows_go_away_without_holding_up_appends() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut opened = Store::open(dir.path(), NODE).await.expect("opens");
    let many: Vec<Entry> = (0..5_000).map(|index| entry(index, EntryPayload::Blank)).collect();
    append(&mut opened.log, many).await;
    opened.log.purge(LogId::new_term_index(1, 4_499)).await.expect("purges");
    assert_eq!(opened.log.try_get_log_entries(0..10_000).await.expect("reads").len(), 500);
    // Each write takes its share of the deletion along, and none of them the whole.
    for index in 5_000..5_005 {
        append(&mut opened.log, vec![entry(index, EntryPayload::Blank)]).await;
    }
    let path = opened.dir.raft_db();
    close(opened).await;
    let mut conn = sql::open_reader(&path).await.expect("opens");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM log").fetch_one(&mut conn).await.expect("counts");
    assert_eq!(rows, 505);
}
