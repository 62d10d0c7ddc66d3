//! The web servers: who they are and what they answer.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::ServerConfig;
use sandtrace_guest::agent::hosts;
use serde_json::json;

use super::WorldError;
use super::authority::Authority;
use super::log::Request;
use super::places::{API_ADDRESS, DROP_ADDRESS, FILES_ADDRESS, UPDATES_ADDRESS};

/// One web server.
pub(super) struct Site {
    pub(super) host: &'static str,
    pub(super) address: Ipv4Addr,
    /// Absent: plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    answer: fn(&Request, u64) -> Answer,
}

/// An HTTP status line's end and a JSON body.
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) body: String,
}

impl Site {
    pub(super) fn port(&self) -> u16 {
        if self.tls.is_some() { 443 } else { 80 }
    }

    /// The answer to the `serial`th request of this world.
    pub(super) fn answer(&self, request: &Request, serial: u64) -> Answer {
        (self.answer)(request, serial)
    }
}

/// All servers, their certificates signed by `authority`.
pub(super) fn all(authority: &Authority) -> Result<Vec<Site>, WorldError> {
    let secure = |host, address, answer| {
        Ok::<_, WorldError>(Site {
            host,
            address,
            tls: Some(authority.server(host)?),
            answer,
        })
    };
    let updates = Site {
        host: hosts::UPDATES,
        address: UPDATES_ADDRESS,
        tls: None,
        answer: updates,
    };
    Ok(vec![
        secure(hosts::API, API_ADDRESS, charges)?,
        secure(hosts::FILES, FILES_ADDRESS, files)?,
        secure(hosts::DROP, DROP_ADDRESS, pastes)?,
        updates,
    ])
}

/// Answers in the shape of Stripe's charges API.
fn charges(request: &Request, serial: u64) -> Answer {
    if (request.method.as_str(), request.path.as_str()) != ("POST", "/v1/charges") {
        return not_found();
    }
    let amount = field(&request.body, "amount").and_then(|text| text.parse::<u64>().ok());
    let Some(amount) = amount else {
        let error = json!({"error": {"type": "invalid_request_error", "param": "amount"}});
        return Answer::new("400 Bad Request", &error);
    };
    let charge = json!({
        "id": format!("ch_lab{serial:06}"),
        "object": "charge",
        "amount": amount,
        "currency": field(&request.body, "currency").unwrap_or("usd"),
        "status": "succeeded",
    });
    Answer::new("200 OK", &charge)
}

fn files(request: &Request, _: u64) -> Answer {
    if request.method == "GET" && request.path == "/v1/files" {
        Answer::new("200 OK", &json!({"object": "list", "data": []}))
    } else {
        not_found()
    }
}

/// Takes whatever it is given.
fn pastes(request: &Request, serial: u64) -> Answer {
    let stored = json!({"paste": serial, "bytes": request.body.len()});
    Answer::new("201 Created", &stored)
}

fn updates(request: &Request, _: u64) -> Answer {
    if request.method == "GET" {
        Answer::new("200 OK", &json!({"now": true}))
    } else {
        not_found()
    }
}

fn not_found() -> Answer {
    Answer::new("404 Not Found", &json!({"error": {"type": "not_found"}}))
}

impl Answer {
    fn new(status: &'static str, body: &serde_json::Value) -> Self {
        Self {
            status,
            body: body.to_string(),
        }
    }
}

/// A field of a form, not decoded: the fields that are looked at need no encoding.
fn field<'a>(form: &'a [u8], name: &str) -> Option<&'a str> {
    str::from_utf8(form)
        .ok()?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &str, path: &str, body: &str, status: &str, expected: &str) {
        let request = Request {
            host: hosts::API.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            body: body.as_bytes().to_vec(),
            received_so_far: 0,
        };
        let answer = charges(&request, 7);
        assert_eq!(answer.status, status);
        assert!(answer.body.contains(expected), "{}", answer.body);
    }

    #[test]
    fn charges_like_the_real_one() {
        let ok = "200 OK";
        check("POST", "/v1/charges", "amount=42", ok, r#""amount":42"#);
        check("POST", "/v1/charges", "x=1&amount=42", ok, "ch_lab000007");
        let bad = "400 Bad Request";
        check("POST", "/v1/charges", "amount=much", bad, "amount");
        check("GET", "/v1/charges", "", "404 Not Found", "not_found");
    }
}
