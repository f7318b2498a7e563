//! The cluster and its nodes: its id, who is where, and whose verdicts count.

use super::{Draft, Entry};
use crate::command::{Done, NodeAnnounce, Refusal, Reply};
use crate::event::EventKind;
use crate::id::NodeId;
use crate::state::{Change, Node};
use crate::time::Millis;

impl Entry<'_> {
    pub(super) fn cluster_create(&mut self, cluster_id: &str) -> Reply {
        if self.state.meta.cluster_id.is_empty() {
            cluster_id.clone_into(&mut self.state.meta.cluster_id);
        }
        Ok(Done::Ok)
    }

    pub(super) fn node_announce(&mut self, announce: &NodeAnnounce) -> Reply {
        let NodeAnnounce { node: id, api, peer, version } = announce;
        let known = self.state.nodes.get(id);
        if known.is_some_and(|node| node.api == *api && node.peer == *peer && node.version == *version) {
            return Ok(Done::Ok);
        }
        let reason = match known {
            None => format!("node {id} announced itself: API at {api}, peers at {peer}, version {version}"),
            Some(_) => format!("node {id} announced itself anew: API at {api}, peers at {peer}, version {version}"),
        };
        // A node that is counted out stays so until the leader hears it again: announcing is no proof of being heard.
        let live = known.is_none_or(|node| node.live);
        let node = Node {
            id: *id,
            api: api.clone(),
            peer: peer.clone(),
            version: version.clone(),
            live,
            since: known.map_or(self.wall, |node| node.since),
        };
        self.state.nodes.insert(*id, node);
        self.changes.insert(Change::Node(*id));
        let revision = self.emit(Draft::new(EventKind::NodeJoined, reason).node(*id));
        // One more observer makes the majority larger.
        self.count_everything_again(revision);
        Ok(Done::Ok)
    }

    pub(super) fn observer_lost(&mut self, id: NodeId, silent_for: Millis) -> Reply {
        self.set_live(id, false)?;
        let reason = format!("the leader has not heard node {id} for {silent_for}: its verdicts no longer count");
        let revision = self.emit(Draft::new(EventKind::NodeLost, reason).node(id));
        // What it held is forgotten, not kept: when it is back it must have looked again before it counts.
        let held: Vec<_> = self
            .state
            .services
            .values()
            .flat_map(|service| service.instances.values().map(move |instance| (service, instance)))
            .filter(|(_, instance)| instance.verdicts.contains_key(&id))
            .map(|(service, instance)| (service.name.clone(), instance.id.clone()))
            .collect();
        for (service, instance) in held {
            if let Some(instance) = self.instance_mut(&service, &instance) {
                instance.verdicts.remove(&id);
            }
        }
        self.count_everything_again(revision);
        Ok(Done::Ok)
    }

    pub(super) fn observer_back(&mut self, id: NodeId) -> Reply {
        self.set_live(id, true)?;
        let reason = format!("the leader hears node {id} again: its verdicts count as soon as it has looked");
        let revision = self.emit(Draft::new(EventKind::NodeBack, reason).node(id));
        self.count_everything_again(revision);
        Ok(Done::Ok)
    }

    fn set_live(&mut self, id: NodeId, live: bool) -> Result<(), Refusal> {
        let wall = self.wall;
        match self.state.nodes.get_mut(&id) {
            Some(node) if node.live != live => {
                node.live = live;
                node.since = wall;
                self.changes.insert(Change::Node(id));
                Ok(())
            }
            Some(_) | None => Err(Refusal::MovedOn { what: format!("whether node {id} is heard") }),
        }
    }
}
