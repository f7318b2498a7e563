//! `baton tokens conformance` against real HTTP resources: the example that guards, and one that does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::support::process::baton;
use crate::support::{Load, scenario};

#[path = "../client/examples/guarded_http.rs"]
#[expect(dead_code, reason = "the example's own main is not called here")]
mod guarded_http;

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

#[test]
fn a_guarded_resource_passes_and_the_report_says_what_was_not_tried() {
    scenario(Load::Light, async {
        let room = tempfile::tempdir().expect("a directory");
        let (listener, address) = listener();
        let directory = room.path().to_owned();
        std::thread::spawn(move || guarded_http::serve(&listener, &directory).expect("it serves"));

        let url = format!("http://{address}/value");
        let command = ["tokens", "conformance", "--url", &url, "--seed", "5", "--rounds", "4", "--steps", "40"];
        let passed = baton(&command).await;
        assert_eq!(passed.code, Some(0), "{}{}", passed.stdout, passed.stderr);
        assert!(passed.stdout.contains("held     a lower token is refused"), "{}", passed.stdout);
        assert!(passed.stdout.contains("skipped  a restart forgets nothing"), "{}", passed.stdout);

        let again = baton(&command).await;
        assert_eq!(again.code, Some(5), "it has seen higher tokens now: {}", again.stdout);
        assert!(again.stdout.contains("take a fresh resource"), "{}", again.stdout);
    });
}

#[test]
fn a_resource_that_looks_at_no_token_is_found_out_with_its_rule_and_seed() {
    scenario(Load::Light, async {
        let (listener, address) = listener();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                // Whoever hangs up is answered into the void.
                let _ = stream.read(&mut request);
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
            }
        });
        let url = format!("http://{address}/");
        let broken = baton(&["-o", "json", "tokens", "conformance", "--url", &url, "--seed", "5"]).await;
        assert_eq!(broken.code, Some(5), "{}{}", broken.stdout, broken.stderr);
        let told: Value = serde_json::from_str(&broken.stdout).expect("JSON");
        assert_eq!((&told["passed"], &told["rule"]), (&Value::Bool(false), &Value::from("no_token_refused")), "{told}");
        assert_eq!(told["seed"], 5);
    });
}

/// The address of a server that says 500 to everything.
fn wrong_status() -> String {
    let (listener, address) = listener();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            // Whoever hangs up is answered into the void.
            let _ = stream.read(&mut request);
            let head = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(head);
        }
    });
    format!("http://{address}/")
}

#[test]
fn a_restart_command_that_fails_and_a_resource_that_is_not_there_are_said() {
    scenario(Load::Light, async {
        let room = tempfile::tempdir().expect("a directory");
        let (listener, address) = listener();
        let directory = room.path().to_owned();
        std::thread::spawn(move || guarded_http::serve(&listener, &directory).expect("it serves"));
        let url = format!("http://{address}/value");
        let failed = baton(&["tokens", "conformance", "--url", &url, "--restart", "exit 3"]).await;
        assert_eq!(failed.code, Some(5), "{}", failed.stdout);
        assert!(failed.stdout.contains("`exit 3` ended with exit status: 3"), "{}", failed.stdout);

        let nobody = baton(&["tokens", "conformance", "--url", "http://127.0.0.1:1/"]).await;
        assert_eq!(nobody.code, Some(2), "{}", nobody.stdout);
        // What is no resource answers all the same: it is not as it should be, and it is there.
        let wrong = wrong_status();
        let wrong = baton(&["tokens", "conformance", "--url", &wrong]).await;
        assert_eq!(wrong.code, Some(5), "{}", wrong.stdout);
        assert!(wrong.stdout.contains("neither 2xx nor"), "{}", wrong.stdout);
        let nonsense = baton(&["tokens", "conformance", "--url", "https://127.0.0.1:1/"]).await;
        assert_eq!((nonsense.code, nonsense.stdout.as_str()), (Some(3), ""), "{}", nonsense.stderr);
    });
}
