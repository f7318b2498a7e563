//! The guards from outside: what they keep over threads, processes, crashes and torn files; and the conformance run,
//! which must pass what is right and find out what is wrong.
//!
//! The resources of `examples/` are tried as they stand. Where a real process must be killed, this test binary starts
//! itself again, told by an environment variable what to be.

#[path = "guard/broken.rs"]
mod broken;
#[path = "guard/child.rs"]
mod child;
#[path = "guard/conforms.rs"]
mod conforms;
#[path = "guard/file.rs"]
mod file;
#[path = "../examples/guarded_http.rs"]
#[expect(dead_code, reason = "an example's own main is not called here")]
mod guarded_http;
#[path = "../examples/guarded_sqlite.rs"]
#[expect(dead_code, reason = "an example's own main is not called here")]
mod guarded_sqlite;
#[path = "guard/postgres.rs"]
mod postgres;
#[path = "guard/sqlite.rs"]
mod sqlite;
