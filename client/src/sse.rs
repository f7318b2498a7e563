//! A parser of server-sent events (WHATWG HTML, section 9.2): bytes in, frames out. It knows no socket and no Baton.

/// The longest event that is put together. The first one holds a snapshot of the whole cluster.
const FRAME_MAX: usize = 64 << 20;

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The `event` field; empty where there was none.
    pub event: String,
    /// The `data` lines, joined by line feeds.
    pub data: String,
    /// The last `id` seen, in this event or before it.
    pub id: Option<String>,
}

/// An event longer than any that Baton sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {} MiB", FRAME_MAX >> 20)]
pub struct FrameTooLong;

/// Turns bytes, cut anywhere, into frames.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The line that is not finished yet.
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed right after it ends no second line.
    after_cr: bool,
    /// The very first line may begin with a byte order mark.
    begun: bool,
    event: String,
    data: String,
    has_data: bool,
    id: Option<String>,
}

impl SseParser {
    /// Takes the next bytes and returns the frames that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, FrameTooLong> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if self.after_cr {
                self.after_cr = false;
                if first == b'\n' {
                    rest = &rest[1..];
                    continue;
                }
            }
            match rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
                Some(end) => {
                    self.line.extend_from_slice(&rest[..end]);
                    self.after_cr = rest[end] == b'\r';
                    rest = &rest[end + 1..];
                    frames.extend(self.end_line());
                }
                None => {
                    self.line.extend_from_slice(rest);
                    rest = &[];
                }
            }
            if self.line.len() + self.data.len() > FRAME_MAX {
                return Err(FrameTooLong);
            }
        }
        Ok(frames)
    }

    /// The id to resume from.
    pub fn last_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn end_line(&mut self) -> Option<Frame> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line: &str = &text;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match line.split_once(':') {
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            // An id with a NUL must be ignored, says the standard.
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // Comments have an empty field name; `retry` and unknown fields change nothing here.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Frame> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        // An event without data is not delivered; its id counts all the same.
        std::mem::take(&mut self.has_data).then(|| Frame { event, data, id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: &str, data: &str, id: Option<&str>) -> Frame {
        Frame { event: event.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) }
    }

    const TEXT: &str = "\u{feff}: hello\n\nid: 1\nevent: a\ndata: one\ndata:two\n\nid\r\ndata\r\n\r\ndata:  x: y\rretry: 5\r\r\
        event: lonely\nid: 9\n\ndata: é\n\nid: \0\ndata: last\n\n";

    fn expected() -> Vec<Frame> {
        vec![
            frame("a", "one\ntwo", Some("1")),
            frame("", "", Some("")),
            frame("", " x: y", Some("")),
            frame("", "é", Some("9")),
            frame("", "last", Some("9")),
        ]
    }

    #[test]
    fn lines_may_end_in_any_way_and_be_cut_anywhere() {
        assert_eq!(SseParser::default().push(TEXT.as_bytes()), Ok(expected()));
        for size in 1..TEXT.len() {
            let mut parser = SseParser::default();
            let mut frames = Vec::new();
            for chunk in TEXT.as_bytes().chunks(size) {
                frames.extend(parser.push(chunk).expect("it is short"));
            }
            assert_eq!(frames, expected(), "cut into pieces of {size}");
            assert_eq!(parser.last_id(), Some("9"));
        }
    }

    #[test]
    fn an_unfinished_event_is_not_told() {
        assert_eq!(SseParser::default().push(b"data: half\n"), Ok(Vec::new()));
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::default();
        let line = [b"data: ".as_slice(), &vec![b'x'; 1 << 20], b"\n"].concat();
        assert!((0..=FRAME_MAX >> 20).any(|_| parser.push(&line) == Err(FrameTooLong)));
    }
}
