//! The two messages of gRPC's health checking protocol, and the frame that every gRPC message has. Written by hand: they
//! are a text and a number. Sources: `grpc/health/v1/health.proto` of <https://github.com/grpc/grpc-proto>, "Length-
//! Prefixed-Message" in gRPC's PROTOCOL-HTTP2.md, and <https://protobuf.dev/programming-guides/encoding/>.

use bytes::Bytes;

/// A gRPC message begins with whether it is compressed, in one byte, and how long it is, in four.
const PREFIX: usize = 5;

/// The longest varint, in bytes: 64 bits, 7 in each.
const VARINT_MAX: usize = 10;

/// What a server says of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `UNKNOWN`
    Unknown,
    /// `SERVING`
    Serving,
    /// `NOT_SERVING`
    NotServing,
    /// `SERVICE_UNKNOWN`
    ServiceUnknown,
    /// None of those that the protocol knows.
    Other(u64),
}

/// The framed `HealthCheckRequest { string service = 1; }`. An empty name, being the default, takes no bytes.
pub(crate) fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        put_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    // A check's service has 200 bytes at most.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let framed: Vec<u8> = [0].into_iter().chain(length.to_be_bytes()).chain(message).collect();
    framed.into()
}

/// Reads a framed `HealthCheckResponse { ServingStatus status = 1; }`. `None`: it is not one, whole and alone.
pub(crate) fn response(framed: &[u8]) -> Option<Answer> {
    let (prefix, mut message) = framed.split_at_checked(PREFIX)?;
    let (compressed, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    // Nobody was offered to compress.
    if *compressed != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (0, _) => return None,
            // The last one counts, as everywhere in protobuf.
            (1, 0) => status = varint(&mut message)?,
            (1, _) => return None,
            // Fields from a later version are skipped, by their wire type.
            (_, 0) => _ = varint(&mut message)?,
            (_, 1) => _ = take(&mut message, 8)?,
            (_, 2) => {
                let length = varint(&mut message)?;
                _ = take(&mut message, usize::try_from(length).ok()?)?;
            }
            (_, 5) => _ = take(&mut message, 4)?,
            (_, _) => return None,
        }
    }
    Some(match status {
        0 => Answer::Unknown,
        1 => Answer::Serving,
        2 => Answer::NotServing,
        3 => Answer::ServiceUnknown,
        other => Answer::Other(other),
    })
}

fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for at in 0..VARINT_MAX {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        if at == VARINT_MAX - 1 && bits > 1 {
            return None;
        }
        number |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(&request("")[..], b"\0\0\0\0\0");
        assert_eq!(&request("a.b")[..], b"\0\0\0\0\x05\x0a\x03a.b");
        let long = "x".repeat(200);
        let framed = request(&long);
        assert_eq!(&framed[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(framed.len(), 8 + 200);
    }

    #[test]
    fn a_response_says_how_it_stands() {
        for (framed, serving) in [
            (&b"\0\0\0\0\0"[..], Answer::Unknown),
            (b"\0\0\0\0\x02\x08\0", Answer::Unknown),
            (b"\0\0\0\0\x02\x08\x01", Answer::Serving),
            (b"\0\0\0\0\x02\x08\x02", Answer::NotServing),
            (b"\0\0\0\0\x02\x08\x03", Answer::ServiceUnknown),
            (b"\0\0\0\0\x03\x08\x80\x01", Answer::Other(128)),
            (b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Answer::Other(u64::MAX)),
            (b"\0\0\0\0\x04\x08\x02\x08\x01", Answer::Serving),
            // Fields 2 to 5 of each wire type, and then the status.
            (b"\0\0\0\0\x16\x10\x81\x01\x19\0\0\0\0\0\0\0\0\x22\x01x\x2d\0\0\0\0\x08\x01", Answer::Serving),
        ] {
            assert_eq!(response(framed), Some(serving), "{framed:?}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for framed in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x01",
            b"\0\0\0\0\x02\x08\x01\0",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x01\x08",
            b"\0\0\0\0\x02\x08\x80",
            b"\0\0\0\0\x02\x0a\x01",
            b"\0\0\0\0\x02\x12\x01",
            b"\0\0\0\0\x02\x00\x01",
            b"\0\0\0\0\x02\x13\x01",
            b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\0\0\0\0\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"HTTP/1.1 200 OK\r\n",
        ] {
            assert_eq!(response(framed), None, "{framed:?}");
        }
    }
}
