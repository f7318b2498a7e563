//! `baton run`: a child process that runs while its instance is active, under the lease of its token.

mod group;
mod rules;
mod supervisor;
mod watchdog;
mod words;

#[cfg(test)]
mod tests;
