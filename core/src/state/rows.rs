//! The state as rows: what the store writes, what a start reads back, and what the state hash is made of. One row an
//! object, so that a change costs what it changes.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{Debt, Instance, Meta, Node, Service, State};
use crate::id::{InstanceId, NodeId, ServiceName, TransitionId};
use crate::policy::words;
use crate::transition::Transition;

words! {
    /// What kind of object a row holds. The order is the order in which rows are read back.
    RowKind {
        /// Counters and marks: one row.
        Meta = "meta",
        /// A node.
        Node = "node",
        /// A service without its instances.
        Service = "service",
        /// An instance.
        Instance = "instance",
        /// A transition's record.
        Transition = "transition",
        /// A lease that a deleted service owes.
        Debt = "debt",
    }
}

/// An object that a command touched. Where it is no longer in the state, its row goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Counters and marks.
    Meta,
    /// A node.
    Node(NodeId),
    /// A service.
    Service(ServiceName),
    /// An instance.
    Instance(ServiceName, InstanceId),
    /// A transition's record.
    Transition(TransitionId),
    /// A lease that a deleted service owes.
    Debt(ServiceName),
}

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its kind.
    pub kind: RowKind,
    /// Its key, unique within the kind.
    pub key: String,
    /// Its JSON.
    pub body: String,
}

/// A stored row that is not what its kind says.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRow {
    /// The body does not parse.
    #[error("{kind} row \"{key}\" does not parse")]
    Body {
        /// The row's kind.
        kind: RowKind,
        /// The row's key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An instance whose service has no row.
    #[error("instance row \"{key}\" belongs to no service")]
    Orphan {
        /// The row's key.
        key: String,
    },
    /// An object that cannot be written as JSON: a defect of this program.
    #[error("{kind} \"{key}\" cannot be written as JSON")]
    Unwritable {
        /// The row's kind.
        kind: RowKind,
        /// The row's key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl Change {
    /// The kind of the object's row.
    pub const fn kind(&self) -> RowKind {
        match self {
            Self::Meta => RowKind::Meta,
            Self::Node(_) => RowKind::Node,
            Self::Service(_) => RowKind::Service,
            Self::Instance(..) => RowKind::Instance,
            Self::Transition(_) => RowKind::Transition,
            Self::Debt(_) => RowKind::Debt,
        }
    }

    /// The key of the object's row. Numbers are padded so that rows sort as numbers do.
    pub fn key(&self) -> String {
        match self {
            Self::Meta => "meta".to_owned(),
            Self::Node(id) => format!("{id:020}"),
            Self::Service(name) | Self::Debt(name) => name.to_string(),
            Self::Instance(service, id) => format!("{service}/{id}"),
            Self::Transition(id) => format!("{:020}", id.0),
        }
    }
}

fn write<T: Serialize>(kind: RowKind, key: String, object: &T) -> Result<Row, InvalidRow> {
    match serde_json::to_string(object) {
        Ok(body) => Ok(Row { kind, key, body }),
        Err(source) => Err(InvalidRow::Unwritable { kind, key, source }),
    }
}

fn read<T: DeserializeOwned>(row: &Row) -> Result<T, InvalidRow> {
    serde_json::from_str(&row.body).map_err(|source| InvalidRow::Body { kind: row.kind, key: row.key.clone(), source })
}

impl State {
    /// The row of a changed object, or `None` where it is no longer there and its row must go.
    pub fn row(&self, change: &Change) -> Result<Option<Row>, InvalidRow> {
        let (kind, key) = (change.kind(), change.key());
        let row = match change {
            Change::Meta => Some(write(kind, key, &self.meta)),
            Change::Node(id) => self.nodes.get(id).map(|node| write(kind, key, node)),
            Change::Service(name) => self.services.get(name).map(|service| write(kind, key, service.as_ref())),
            Change::Instance(service, id) => {
                self.instance(service, id).map(|instance| write(kind, key, instance.as_ref()))
            }
            Change::Transition(id) => self.transitions.get(id).map(|transition| write(kind, key, transition.as_ref())),
            Change::Debt(name) => self.debts.get(name).map(|debt| write(kind, key, debt)),
        };
        row.transpose()
    }

    /// Every row, in the order in which they can be read back.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row, InvalidRow>> + '_ {
        let nodes = self.nodes.keys().map(|id| Change::Node(*id));
        let services = self.services.keys().map(|name| Change::Service(name.clone()));
        let instances = self
            .services
            .values()
            .flat_map(|service| service.instances.keys().map(|id| Change::Instance(service.name.clone(), id.clone())));
        let transitions = self.transitions.keys().map(|id| Change::Transition(*id));
        let debts = self.debts.keys().map(|name| Change::Debt(name.clone()));
        std::iter::once(Change::Meta)
            .chain(nodes)
            .chain(services)
            .chain(instances)
            .chain(transitions)
            .chain(debts)
            .filter_map(|change| self.row(&change).transpose())
    }

    /// The state that rows describe. Rows must come in the order of [`RowKind`]: services before their instances.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Result<Self, InvalidRow> {
        let mut state = Self::default();
        for row in rows {
            match row.kind {
                RowKind::Meta => state.meta = read::<Meta>(&row)?,
                RowKind::Node => {
                    let node: Node = read(&row)?;
                    state.nodes.insert(node.id, node);
                }
                RowKind::Service => {
                    let service: Service = read(&row)?;
                    state.services.insert(service.name.clone(), Arc::new(service));
                }
                RowKind::Instance => {
                    let instance: Instance = read(&row)?;
                    let orphan = || InvalidRow::Orphan { key: row.key.clone() };
                    let name: ServiceName =
                        row.key.split_once('/').and_then(|(name, _)| name.parse().ok()).ok_or_else(orphan)?;
                    let service = state.services.get_mut(&name).ok_or_else(orphan)?;
                    Arc::make_mut(service).instances.insert(instance.id.clone(), Arc::new(instance));
                }
                RowKind::Transition => {
                    let transition: Transition = read(&row)?;
                    state.transitions.insert(transition.id, Arc::new(transition));
                }
                RowKind::Debt => {
                    let debt: Debt = read(&row)?;
                    state.debts.insert(debt.service.clone(), debt);
                }
            }
        }
        Ok(state)
    }

    /// A SHA-256 over every row, as hexadecimal text. Equal applied index, equal hash, on every node.
    pub fn hash(&self) -> Result<String, InvalidRow> {
        let mut hasher = Sha256::new();
        for row in self.rows() {
            let row = row?;
            for part in [row.kind.as_str(), &row.key, &row.body] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
        Ok(hex(&hasher.finalize()))
    }
}

/// Bytes as lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
