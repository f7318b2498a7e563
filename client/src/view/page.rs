//! Pages of lists. Ask for the next one with `cursor` set to `next_cursor`; null means that there is none.

use baton_core::event::Event;
use baton_core::transition::Transition;
use serde::{Deserialize, Serialize};

use super::{InstanceView, ServiceView};

macro_rules! page {
    ($(#[$doc:meta])* $name:ident of $item:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name {
            /// What is on this page.
            pub items: Vec<$item>,
            /// Where the next page begins; null at the end of the list.
            pub next_cursor: Option<String>,
        }
    };
}

page! {
    /// Services in order of their names.
    ServicePage of ServiceView
}
page! {
    /// Instances in order of their ids.
    InstancePage of InstanceView
}
page! {
    /// Transitions, the newest first.
    TransitionPage of Transition
}
page! {
    /// Events in order of their revisions.
    EventPage of Event
}
