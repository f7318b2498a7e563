//! Reaching a target: what probes and webhooks do alike, so that the rules of whom this node may connect to stand once. A
//! name is resolved, judged and pinned; a connection is made to what was judged; TLS goes by the certificates that this
//! node trusts; one request is sent. When, what is asked and what the answer means is for those who ask.

pub(crate) mod fault;
pub(crate) mod http1;
pub(crate) mod resolve;
pub(crate) mod tcp;
pub(crate) mod tls;
