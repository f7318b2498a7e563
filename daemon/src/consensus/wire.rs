//! What peers say to each other, as bytes. Entries travel as the very text that is in the log. No I/O, no decisions.

use baton_core::command::Reply;
use bytes::{BufMut, Bytes, BytesMut};
use openraft::alias::VoteOf;
use openraft::raft::AppendEntriesRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::{Carried, EntryId, PayloadKind, SnapshotMeta, SpeltEntry, TypeConfig};

/// Bytes of the number that says how long a frame's head is.
const LENGTH_BYTES: usize = 4;

/// Why bytes from a peer make no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// They end too early, or go on too long.
    #[error("the message is cut off or too long")]
    Length,
    /// They are not what they should be.
    #[error("the message does not parse")]
    Json(#[from] serde_json::Error),
    /// A text is not UTF-8.
    #[error("the message is not UTF-8")]
    Text(#[from] std::str::Utf8Error),
}

/// The head of an append: all but the entries' bodies.
#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: VoteOf<TypeConfig>,
    prev: Option<EntryId>,
    commit: Option<EntryId>,
    entries: Vec<EntryHead>,
}

#[derive(Serialize, Deserialize)]
struct EntryHead {
    index: u64,
    term: u64,
    kind: PayloadKind,
    bytes: usize,
}

/// The head of a snapshot's transfer; the file follows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    /// The leader's vote.
    pub(super) vote: VoteOf<TypeConfig>,
    /// What it covers.
    pub(super) meta: SnapshotMeta,
    /// The length of the file.
    pub(super) bytes: u64,
}

/// How a forwarded proposal came out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProposeAnswer {
    /// Applied.
    Applied {
        /// The entry, so that the asker can wait until it has it too.
        index: u64,
        /// One reply a command.
        replies: Vec<Reply>,
    },
    /// Surely not in the log: ask again, perhaps somebody else.
    NotProposed,
    /// Surely not in the log: too much is waiting.
    Overloaded,
    /// It may or may not come to be.
    Unknown,
}

/// How a question for the read index came out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReadIndexAnswer {
    /// Once this is applied, everything acknowledged before the question is visible.
    Index(u64),
    /// Not the leader, or no quorum stands behind it.
    None,
}

/// A length, a JSON head, and room for what follows.
pub(super) fn frame<T: Serialize>(head: &T, room: usize) -> Result<BytesMut, WireError> {
    let json = serde_json::to_vec(head)?;
    let length = u32::try_from(json.len()).map_err(|_| WireError::Length)?;
    let mut bytes = BytesMut::with_capacity(LENGTH_BYTES + json.len() + room);
    bytes.put_u32(length);
    bytes.put_slice(&json);
    Ok(bytes)
}

/// Splits a frame into its head and what follows. `None`: more bytes are needed.
pub(super) fn unframe<T: DeserializeOwned>(bytes: &Bytes) -> Result<Option<(T, Bytes)>, WireError> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let end = LENGTH_BYTES + u32::from_be_bytes(*length) as usize;
    match bytes.get(LENGTH_BYTES..end) {
        Some(json) => Ok(Some((serde_json::from_slice(json)?, bytes.slice(end..)))),
        None => Ok(None),
    }
}

/// An append as bytes.
pub(super) fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Result<Bytes, WireError> {
    let spelt = request.entries.iter().map(SpeltEntry::of).collect::<Result<Vec<_>, _>>()?;
    let entries = spelt.iter().map(|entry| EntryHead {
        index: entry.index,
        term: entry.term,
        kind: entry.kind,
        bytes: entry.body.len(),
    });
    let head = AppendHead {
        vote: request.vote,
        prev: request.prev_log_id,
        commit: request.leader_commit,
        entries: entries.collect(),
    };
    let mut bytes = frame(&head, spelt.iter().map(|entry| entry.body.len()).sum())?;
    for entry in &spelt {
        bytes.put_slice(entry.body.as_bytes());
    }
    Ok(bytes.freeze())
}

/// The append that bytes say.
pub(super) fn decode_append(bytes: &Bytes) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let (head, mut bodies): (AppendHead, Bytes) = unframe(bytes)?.ok_or(WireError::Length)?;
    let mut entries = Vec::with_capacity(head.entries.len());
    for entry in head.entries {
        if entry.bytes > bodies.len() {
            return Err(WireError::Length);
        }
        let body = bodies.split_to(entry.bytes);
        entries.push(SpeltEntry::read(entry.index, entry.term, entry.kind, std::str::from_utf8(&body)?)?);
    }
    if !bodies.is_empty() {
        return Err(WireError::Length);
    }
    Ok(AppendEntriesRequest { vote: head.vote, prev_log_id: head.prev, leader_commit: head.commit, entries })
}

/// Commands as bytes: one line of JSON each. JSON as it is written here has no line breaks.
pub(super) fn encode_commands<'a>(commands: impl IntoIterator<Item = &'a Carried>) -> Bytes {
    let mut bytes = BytesMut::new();
    for command in commands {
        bytes.put_slice(command.json().as_bytes());
        bytes.put_u8(b'\n');
    }
    bytes.freeze()
}

/// The commands that bytes say.
pub(super) fn decode_commands(bytes: &Bytes) -> Result<Vec<Carried>, WireError> {
    std::str::from_utf8(bytes)?.lines().map(|line| Ok(Carried::parse(line)?)).collect()
}

#[cfg(test)]
mod tests {
    use openraft::{EntryPayload, LogId, Vote};

    use super::*;
    use crate::store::{Entry, Proposal};
    use baton_core::command::{Batch, Command};
    use baton_core::time::{ClusterTime, WallTime};

    #[test]
    fn an_append_comes_back_as_it_went() {
        let batch = Batch {
            time: ClusterTime(7),
            wall: WallTime(8),
            commands: vec![Command::ObserverBack { node: 3 }, Command::EventsCompact { through: 2 }],
        };
        let entry = |index, payload| Entry { log_id: LogId::new_term_index(4, index), payload };
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(4, 1),
            prev_log_id: Some(LogId::new_term_index(3, 9)),
            leader_commit: None,
            entries: vec![
                entry(10, EntryPayload::Blank),
                entry(11, EntryPayload::Normal(Proposal::new(batch).expect("encodes"))),
            ],
        };
        let bytes = encode_append(&request).expect("encodes");
        let back = decode_append(&bytes).expect("decodes");
        assert_eq!((back.vote, back.prev_log_id, back.leader_commit), (request.vote, request.prev_log_id, None));
        assert_eq!(back.entries, request.entries);

        assert!(decode_append(&bytes.slice(..bytes.len() - 1)).is_err(), "cut off");
        let mut longer = BytesMut::from(&bytes[..]);
        longer.put_u8(b' ');
        assert!(decode_append(&longer.freeze()).is_err(), "too long");
    }

    #[test]
    fn commands_travel_one_a_line() {
        let carried = [
            Carried::new(Command::ClusterCreate { cluster_id: "line\nbreak".to_owned() }).expect("encodes"),
            Carried::new(Command::ObserverBack { node: 3 }).expect("encodes"),
        ];
        let back = decode_commands(&encode_commands(&carried)).expect("decodes");
        assert_eq!(back.len(), 2);
        assert!(back.iter().zip(&carried).all(|(back, went)| back.command() == went.command()));
    }
}
