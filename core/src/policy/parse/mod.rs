//! How a JSON body becomes a `Spec` or a `Registration`: every field checked, every error reported with its path, all
//! of them together. What passes here needs no second check inside. Nothing here decides anything.

mod check;
mod registration;
mod spec;
mod web;

#[cfg(test)]
mod tests;

pub use crate::json::FieldError;
pub use registration::{parse_registration, parse_registration_patch};
pub use spec::{LAG_MAX, parse_spec};
