//! What the instances of a service work on, with a guard that refuses old tokens.

use super::invariants;
use super::message::Message;
use super::net::Addr;
use super::seen::Sight;
use super::world::{World, tell};

impl World {
    /// The guard of what a service's instances work on: it remembers the highest token that it saw.
    pub(crate) fn resource_hears(&mut self, service: usize, from: Addr, message: &Message) {
        let Message::Work { token } = message else { return };
        let highest = self.guards[service];
        let admits = token.0 >= highest;
        if admits {
            self.guards[service] = token.0;
        } else {
            self.seen.note(Sight::OldTokensRefused);
            tell!(self, "r{service} refuses token {token} of {from}: it has seen {highest}");
        }
        invariants::admitted(self, *token, highest, admits);
    }
}
