//! TLS records made for tests.

pub(crate) fn vec8(body: &[u8]) -> Vec<u8> {
    [&[body.len() as u8], body].concat()
}

pub(crate) fn vec16(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes(), body].concat()
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_be_bytes();
    [&[kind], &len[1..], body].concat()
}

pub(crate) fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3], &vec16(body)[..]].concat()
}

pub(crate) fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &vec16(body)[..]].concat()
}

/// A ClientHello with a key share of `key` bytes.
pub(crate) fn client_hello(sni: &str, key: usize) -> Vec<u8> {
    client_hello_offering(&["h2", "http/1.1"], sni, key)
}

/// The same with these protocols in ALPN.
pub(crate) fn client_hello_offering(protocols: &[&str], sni: &str, key: usize) -> Vec<u8> {
    let protocols = protocols.iter().flat_map(|it| vec8(it.as_bytes()));
    let name = [&[0], &vec16(sni.as_bytes())[..]].concat();
    let extensions = [
        extension(0x1a1a, &[]),
        extension(51, &vec![7; key]),
        extension(0, &vec16(&name)),
        extension(16, &vec16(&protocols.collect::<Vec<_>>())),
        extension(43, &vec8(&[0x3a, 0x3a, 3, 4, 3, 3])),
        extension(0xfe0d, &[0]),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[9; 32],
        &vec8(&[1; 32]),
        &vec16(&[0x13, 1, 0x13, 2]),
        &vec8(&[0]),
        &vec16(&extensions),
    ]
    .concat();
    message(1, &body)
}

pub(crate) fn hello_records(sni: &str, key: usize, per_record: usize) -> Vec<u8> {
    client_hello(sni, key)
        .chunks(per_record)
        .flat_map(|part| record(22, part))
        .collect()
}

pub(crate) fn server_hello_record(suite: u16, tls13: bool) -> Vec<u8> {
    record(22, &server_hello(suite, tls13))
}

pub(crate) fn server_hello(suite: u16, tls13: bool) -> Vec<u8> {
    let extensions = if tls13 {
        extension(43, &[3, 4])
    } else {
        Vec::new()
    };
    let body = [
        &[3, 3][..],
        &[5; 32],
        &vec8(&[1; 32]),
        &suite.to_be_bytes(),
        &[0],
        &vec16(&extensions),
    ]
    .concat();
    message(2, &body)
}
