//! What every command has in common at the terminal: how things look, events in words, how a command ends. Nothing here
//! knows a command; commands know this.

pub(crate) mod exit;
pub(crate) mod output;
pub(crate) mod words;
