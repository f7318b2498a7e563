//! A resource behind HTTP that checks fencing tokens: one number in a file, guarded by a `FileGuard`.
//!
//! ```text
//! cargo run -p baton-client --example guarded_http -- 127.0.0.1:8080 ./data
//! curl -i -X PUT -H 'Baton-Token: 7' -d 100 http://127.0.0.1:8080/value   # 204
//! curl -i -X PUT -H 'Baton-Token: 6' -d 200 http://127.0.0.1:8080/value   # 412, Baton-Highest-Token: 7
//! baton tokens conformance --url http://127.0.0.1:8080/value              # tries everything, on fresh data
//! ```
//!
//! What matters is `put`: the token is admitted and the work is done under one lock. The server around it is the
//! shortest one that works, a thread a request; use your own.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton_client::guard::http::{HIGHEST_HEADER, MISSING_STATUS, STALE_STATUS, TOKEN_HEADER, token};
use baton_client::guard::{FileGuard, Guard, GuardError};

/// The longest head that is read: several times what any client sends.
const HEAD_MAX: u64 = 8 << 10;
/// The longest body that is read: a number has 20 digits.
const BODY_MAX: usize = 64;
/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a request is answered with.
struct Answer {
    status: u16,
    header: String,
    body: String,
}

impl Answer {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, header: String::new(), body: body.into() }
    }
}

/// The one value that is kept, and the guard before it.
struct Resource {
    guard: FileGuard,
    file: PathBuf,
}

impl Resource {
    fn open(directory: &Path) -> Result<Self, GuardError> {
        Ok(Self { guard: FileGuard::open_or_create(directory.join("token"))?, file: directory.join("value") })
    }

    /// `PUT`: the whole of the guard is in these lines.
    fn put(&self, header: Option<&str>, body: &str) -> Answer {
        let Some(header) = header else { return Answer::new(MISSING_STATUS, format!("{TOKEN_HEADER} is missing\n")) };
        let token = match token(header) {
            Ok(token) => token,
            Err(error) => return Answer::new(400, format!("{error}\n")),
        };
        let Ok(value) = body.trim().parse::<u64>() else { return Answer::new(400, "the body is not a number\n") };
        // Not `check` and then `store`: a higher token could be admitted in between, and its work be overwritten.
        match self.guard.admit(token, || self.store(value)) {
            Ok(Ok(())) => Answer::new(204, ""),
            Ok(Err(error)) => Answer::new(500, format!("it may have been stored or not: {error}\n")),
            Err(GuardError::Stale(stale)) => Answer {
                status: STALE_STATUS,
                header: format!("{HIGHEST_HEADER}: {}\r\n", stale.highest),
                body: format!("{stale}\n"),
            },
            // It cannot tell, so it admits nobody.
            Err(error) => Answer::new(503, format!("{error}\n")),
        }
    }

    fn get(&self) -> Answer {
        match fs::read_to_string(&self.file) {
            Ok(value) => Answer::new(200, value),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::new(404, "nothing was stored yet\n"),
            Err(error) => Answer::new(500, format!("{error}\n")),
        }
    }

    fn store(&self, value: u64) -> io::Result<()> {
        let fresh = self.file.with_extension("new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "{value}")?;
        file.sync_all()?;
        fs::rename(&fresh, &self.file)?;
        let directory = self.file.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// Reads one request and answers it.
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let answer = match Request::read(stream)? {
            Err(answer) => answer,
            Ok(request) => match request.method.as_str() {
                "PUT" | "POST" => self.put(request.token.as_deref(), &request.body),
                "GET" => self.get(),
                _ => Answer::new(405, ""),
            },
        };
        let Answer { status, header, body } = answer;
        let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head =
            format!("HTTP/1.1 {status} \r\nconnection: close\r\ncontent-type: text/plain\r\n{length}{header}\r\n");
        (&mut &*stream).write_all(format!("{head}{body}").as_bytes())
    }
}

/// The parts of a request that matter here.
struct Request {
    method: String,
    token: Option<String>,
    body: String,
}

impl Request {
    /// Reads a request, or says why it cannot be served.
    fn read(stream: &TcpStream) -> io::Result<Result<Self, Answer>> {
        let mut reader = BufReader::new(stream.take(HEAD_MAX + BODY_MAX as u64));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let method = line.split(' ').next().unwrap_or_default().to_owned();
        let mut token = None;
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Ok(Err(Answer::new(400, "no such header\n")));
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case(TOKEN_HEADER) {
                // Two tokens are none: another reader might take the other one.
                if token.replace(value.to_owned()).is_some() {
                    return Ok(Err(Answer::new(400, format!("{TOKEN_HEADER} is there twice\n"))));
                }
            } else if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap_or(usize::MAX);
            }
        }
        if length > BODY_MAX {
            return Ok(Err(Answer::new(413, "")));
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Ok(Self { method, token, body: String::from_utf8_lossy(&body).into_owned() }))
    }
}

/// Serves the resource in `directory` until the process ends.
pub(crate) fn serve(listener: &TcpListener, directory: &Path) -> Result<(), GuardError> {
    let resource = Arc::new(Resource::open(directory)?);
    for stream in listener.incoming().flatten() {
        let resource = Arc::clone(&resource);
        std::thread::spawn(move || {
            // A client that went away in the middle of its request is its own affair.
            let _ = resource.serve(&stream);
        });
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let listen = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let directory = PathBuf::from(args.next().unwrap_or_else(|| "guarded-http-data".to_owned()));
    fs::create_dir_all(&directory)?;
    let listener = TcpListener::bind(listen)?;
    println!("http://{}/value keeps its value in {}", listener.local_addr()?, directory.display());
    Ok(serve(&listener, &directory)?)
}
