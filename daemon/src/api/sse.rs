//! The wire form of a server-sent event (WHATWG HTML, "Server-sent events"). Our data is JSON on one line and our names
//! hold no line break, so a frame is a few copies and nothing need be escaped.

use baton_core::id::Revision;
use bytes::{BufMut, BytesMut};

/// What a client waits before it connects again, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// Appends the first words of a stream: they tell the client when to come back, and make proxies pass the head on.
pub(crate) fn preamble(out: &mut BytesMut) {
    out.put_slice(format!("retry: {RETRY_MS}\n\n").as_bytes());
}

/// Appends one event. Without an `id` the client's last one stays what it was.
pub(crate) fn frame(out: &mut BytesMut, id: Option<Revision>, name: &str, data: &[u8]) {
    debug_assert!(!data.contains(&b'\n') && !data.contains(&b'\r') && !name.contains('\n'));
    if let Some(id) = id {
        out.put_slice(format!("id: {id}\n").as_bytes());
    }
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\ndata: ");
    out.put_slice(data);
    out.put_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_the_standard_says() {
        let mut out = BytesMut::new();
        preamble(&mut out);
        frame(&mut out, Some(7), "active.changed", br#"{"revision":7}"#);
        frame(&mut out, None, "reset", b"{}");
        let expected =
            "retry: 1000\n\nid: 7\nevent: active.changed\ndata: {\"revision\":7}\n\nevent: reset\ndata: {}\n\n";
        assert_eq!(out, expected.as_bytes());
    }
}
