//! The words in which this program talks to openraft: what an entry carries, what it answers, what a node is. Also how
//! an entry's payload is spelt, in the log file and on the wire alike. No I/O.

use std::fmt;
use std::sync::Arc;

use baton_core::command::{Batch, Command, Reply};
use baton_core::time::{ClusterTime, WallTime};
use openraft::alias::{EntryOf, LogIdOf};
use openraft::impls::leader_id_std;
use openraft::{EntryPayload, LogId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

openraft::declare_raft_types!(
    /// The types of this program's Raft group. Leader ids are the standard ones: at most one leader a term.
    pub TypeConfig:
        D = Proposal,
        R = Vec<Reply>,
        NodeId = u64,
        Node = PeerNode,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
);

/// The id of a log entry.
pub(crate) type EntryId = LogIdOf<TypeConfig>;
/// A log entry.
pub(crate) type Entry = EntryOf<TypeConfig>;

/// Where a member's peer listener is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerNode {
    /// `host:port`.
    pub peer: String,
}

/// The commands of one log entry with their JSON. The JSON is made once, by the leader; the log and the wire carry that
/// very text, so a node that replicates or stores an entry does not encode it again.
#[derive(Clone, PartialEq)]
pub struct Proposal {
    batch: Arc<Batch>,
    json: Arc<str>,
}

/// A command with its JSON, made once where the command enters the cluster and carried along from there.
#[derive(Clone, Debug)]
pub struct Carried {
    command: Command,
    json: Box<str>,
}

impl Carried {
    /// A command, encoded.
    pub fn new(command: Command) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_string(&command)?.into();
        Ok(Self { command, json })
    }

    /// The command that a JSON text says.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        Ok(Self { command: serde_json::from_str(json)?, json: json.into() })
    }

    /// The command.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Its JSON.
    pub fn json(&self) -> &str {
        &self.json
    }
}

impl Proposal {
    /// The batch of commands that carry their JSON with them: the batch's JSON is put together from theirs.
    pub fn of(time: ClusterTime, wall: WallTime, carried: Vec<Carried>) -> Self {
        let bytes: usize = carried.iter().map(|command| command.json.len() + 1).sum();
        let mut json = String::with_capacity(bytes + 80);
        // Neither the number nor the time has anything to escape.
        json.push_str(&format!("{{\"time\":{},\"wall\":\"{wall}\",\"commands\":[", time.0));
        for (place, command) in carried.iter().enumerate() {
            if place > 0 {
                json.push(',');
            }
            json.push_str(&command.json);
        }
        json.push_str("]}");
        let commands = carried.into_iter().map(|carried| carried.command).collect();
        Self { batch: Arc::new(Batch { time, wall, commands }), json: json.into() }
    }

    /// A batch, encoded.
    pub fn new(batch: Batch) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_string(&batch)?.into();
        Ok(Self { batch: Arc::new(batch), json })
    }

    /// The batch that a JSON text says.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        Ok(Self { batch: Arc::new(serde_json::from_str(json)?), json: json.into() })
    }

    /// The commands and their stamp.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.batch.commands.len())
    }
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.batch.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(Batch::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// An entry as it is spelt in the log file and on the wire: its id, the kind of its payload, and the payload's JSON.
#[derive(Clone, Debug)]
pub(crate) struct SpeltEntry {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// What the body is.
    pub kind: PayloadKind,
    /// The payload's JSON; empty for a blank.
    pub body: Arc<str>,
}

/// What kind of payload an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PayloadKind {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Commands.
    Commands,
    /// A membership.
    Membership,
}

impl PayloadKind {
    /// The word for the column.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Commands => "commands",
            Self::Membership => "membership",
        }
    }

    /// The kind that a column's word says.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Blank, Self::Commands, Self::Membership].into_iter().find(|kind| kind.as_str() == word)
    }
}

impl SpeltEntry {
    /// The spelling of an entry.
    pub(crate) fn of(entry: &Entry) -> Result<Self, serde_json::Error> {
        let (kind, body) = match &entry.payload {
            EntryPayload::Blank => (PayloadKind::Blank, "".into()),
            EntryPayload::Normal(proposal) => (PayloadKind::Commands, proposal.json.clone()),
            EntryPayload::Membership(membership) => {
                (PayloadKind::Membership, serde_json::to_string(membership)?.into())
            }
        };
        Ok(Self { index: entry.log_id.index, term: entry.log_id.leader_id.term, kind, body })
    }

    /// The entry of that spelling.
    pub(crate) fn read(index: u64, term: u64, kind: PayloadKind, body: &str) -> Result<Entry, serde_json::Error> {
        let payload = match kind {
            PayloadKind::Blank => EntryPayload::Blank,
            PayloadKind::Commands => EntryPayload::Normal(Proposal::parse(body)?),
            PayloadKind::Membership => EntryPayload::Membership(serde_json::from_str(body)?),
        };
        Ok(Entry { log_id: LogId::new_term_index(term, index), payload })
    }
}

/// How many bytes an entry's body has, near enough to bound a message by.
pub(super) fn entry_weight(entry: &Entry) -> usize {
    /// What an entry costs beside its body; also stands for a membership, of which there are few and small.
    const OVERHEAD: usize = 256;
    match &entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => OVERHEAD,
        EntryPayload::Normal(proposal) => OVERHEAD + proposal.json.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_put_together_is_the_one_encoded_whole() {
        let commands = vec![
            Command::ClusterCreate { cluster_id: "a \"quoted\" id".to_owned() },
            Command::ObserverBack { node: 2 },
        ];
        let (time, wall) = (ClusterTime(12), WallTime(1_763_635_320_007));
        let whole = Proposal::new(Batch { time, wall, commands: commands.clone() }).expect("encodes");
        let carried = commands.into_iter().map(|command| Carried::new(command).expect("encodes")).collect();
        assert_eq!(Proposal::of(time, wall, carried), whole);
        assert_eq!(Proposal::parse(&whole.json).expect("decodes"), whole);
        assert_eq!(
            Proposal::of(time, wall, Vec::new()).json.as_ref(),
            Proposal::parse(&Proposal::of(time, wall, Vec::new()).json).expect("an empty one too").json.as_ref()
        );
    }
}
