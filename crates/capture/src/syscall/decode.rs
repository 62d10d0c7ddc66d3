//! A rare call's arguments, in words.

use super::hide::hide;
use super::names;
use super::words;
use super::{Fetched, RawCall};
use sandtrace_event::{Bytes64, Count, RareCall};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What is written of one path or argument.
const MAX_TEXT: usize = 512;

/// Address families (linux/socket.h).
const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;
const AF_VSOCK: u16 = 40;

/// `open(2)`: access mode, and the flags that change a file.
const O_ACCMODE: u64 = 3;
const O_CREAT: u64 = 0o100;
const O_TRUNC: u64 = 0o1000;

/// `prctl(2)` operations that every program uses and that give nothing:
/// PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ,
/// PR_GET_NO_NEW_PRIVS, PR_SET_VMA.
const DULL_PRCTL: [u64; 7] = [3, 15, 16, 21, 23, 39, 0x5356_4d41];

/// A call in words; `None` for one that is not worth a record after all.
pub(crate) fn decode(tid: u32, call: &RawCall) -> Option<RareCall> {
    let name = names::name(call.abi, call.number);
    if name == "prctl" && DULL_PRCTL.contains(&call.arguments[0]) {
        return None;
    }
    if name == "exit_group" {
        return None;
    }
    let mut unread = Vec::new();
    let path = text("path", call.path.as_ref(), &mut unread);
    let address = call.address.as_ref().and_then(|address| match address {
        Some(address) => Some(socket_address(&address.bytes)),
        None => {
            unread.push("address".to_owned());
            None
        }
    });
    if call.argv.iter().any(|argument| argument.cut) {
        unread.push("argv".to_owned());
    }
    let detail = detail(&name, call, &mut unread);
    unread.dedup();
    let argv = call.argv.iter();
    let argv = hide(argv.map(|argument| (lossy(&argument.bytes), argument.cut)));
    let (path, path_b64) = path.map_or((None, None), |bytes| {
        let (path, exact) = Bytes64::readable_and_exact(&bytes);
        (Some(path), exact)
    });
    Some(RareCall {
        abi: call.abi,
        address,
        arguments: call
            .arguments
            .iter()
            .map(|value| format!("{value:#x}"))
            .collect(),
        argv,
        detail,
        name,
        path,
        path_b64,
        repeats: Count(1),
        tid,
        unread,
    })
}

/// Whether an open call asks to change what it opens. `openat2` keeps its
/// flags in memory, so it counts as one that does.
pub(crate) fn may_write(name: &str, arguments: [u64; 6]) -> bool {
    let flags = match name {
        "open" => arguments[1],
        "openat" => arguments[2],
        _ => return true,
    };
    flags & O_ACCMODE != 0 || flags & (O_CREAT | O_TRUNC) != 0
}

fn text(
    what: &str,
    fetched: Option<&Option<Fetched>>,
    unread: &mut Vec<String>,
) -> Option<Vec<u8>> {
    match fetched? {
        Some(fetched) => {
            if fetched.cut || fetched.bytes.len() > MAX_TEXT {
                unread.push(what.to_owned());
            }
            let end = fetched.bytes.len().min(MAX_TEXT);
            fetched.bytes.get(..end).map(<[u8]>::to_vec)
        }
        None => {
            unread.push(what.to_owned());
            None
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    let end = bytes.len().min(MAX_TEXT);
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// `struct sockaddr` of the families that a VMM can have to do with.
fn socket_address(bytes: &[u8]) -> String {
    let Some((family, rest)) = bytes.split_first_chunk::<2>() else {
        return "an address that is too short".to_owned();
    };
    let family = u16::from_ne_bytes(*family);
    let port = rest
        .first_chunk::<2>()
        .map(|port| u16::from_be_bytes(*port));
    match (family, port) {
        (AF_UNIX, _) => unix(rest),
        (AF_INET, Some(port)) => {
            let address = rest
                .get(2..6)
                .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            address.map_or_else(
                || "an IPv4 address that is too short".to_owned(),
                |address| format!("{}:{port}", Ipv4Addr::from(address)),
            )
        }
        (AF_INET6, Some(port)) => {
            let address = rest
                .get(6..22)
                .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            address.map_or_else(
                || "an IPv6 address that is too short".to_owned(),
                |address| format!("[{}]:{port}", Ipv6Addr::from(address)),
            )
        }
        (AF_NETLINK, _) => "netlink".to_owned(),
        (AF_VSOCK, _) => "vsock".to_owned(),
        (AF_UNSPEC, _) => "none".to_owned(),
        _ => format!("family {family}"),
    }
}

/// A path ends at its NUL; an abstract name begins with one (unix(7)).
fn unix(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((0, name)) if !name.is_empty() => {
            let end = name
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |at| at + 1);
            format!("unix:@{}", lossy(name.get(..end).unwrap_or_default()))
        }
        _ => {
            let path = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
            format!("unix:{}", lossy(path))
        }
    }
}

/// What the plain arguments say, for calls where they matter, with the texts
/// that are neither path nor address.
fn detail(name: &str, call: &RawCall, unread: &mut Vec<String>) -> Option<String> {
    let [first, second, third, fourth, fifth, _] = call.arguments;
    let mut text = |at: usize| said(call, at, unread);
    Some(match name {
        "open" | "openat" | "openat2" | "creat" if may_write(name, call.arguments) => {
            "for writing".to_owned()
        }
        "open" | "openat" => "for reading".to_owned(),
        "ptrace" => format!("request {} on process {second}", words::ptrace(first)),
        "process_vm_readv" | "process_vm_writev" => format!("memory of process {first}"),
        "setns" => {
            let kinds = words::namespaces(second);
            format!("descriptor {}, kinds {kinds}", signed(first))
        }
        "unshare" => format!("new {}", words::namespaces(first)),
        "prctl" => {
            let operation = words::prctl(first);
            format!("operation {operation}, {second:#x}, {third:#x}, {fourth:#x}, {fifth:#x}")
        }
        "bpf" => format!("command {}", words::bpf(first)),
        "seccomp" => format!("operation {first}, flags {second:#x}"),
        "setuid" | "setgid" => format!("id {first}"),
        "setresuid" | "setresgid" => {
            format!(
                "ids {}, {}, {}",
                signed(first),
                signed(second),
                signed(third)
            )
        }
        "socketcall" => format!("operation {first}"),
        _ => {
            return mounting(name, call.arguments, &mut text)
                .or_else(|| loading(name, call.arguments, &mut text));
        }
    })
}

/// What changes what is mounted where.
fn mounting(
    name: &str,
    [first, second, third, fourth, fifth, _]: [u64; 6],
    text: &mut impl FnMut(usize) -> String,
) -> Option<String> {
    Some(match name {
        "mount" => format!("source {}, type {}, flags {fourth:#x}", text(0), text(1)),
        "umount2" | "swapon" | "fsopen" => format!("flags {second:#x}"),
        "pivot_root" => format!("old root at {}", text(0)),
        "fsconfig" => {
            let descriptor = signed(first);
            let (key, value) = (text(0), text(1));
            format!("descriptor {descriptor}, command {second}, {key}, {value}")
        }
        "fsmount" => {
            let descriptor = signed(first);
            format!("descriptor {descriptor}, flags {second:#x}, attributes {third:#x}")
        }
        "move_mount" => {
            let (descriptor, path) = (signed(first), text(0));
            format!("from descriptor {descriptor}, {path}, flags {fifth:#x}")
        }
        "open_tree" | "mount_setattr" => format!("flags {third:#x}"),
        _ => return None,
    })
}

/// What puts other code or keys into the kernel.
fn loading(
    name: &str,
    [first, second, third, fourth, fifth, _]: [u64; 6],
    text: &mut impl FnMut(usize) -> String,
) -> Option<String> {
    Some(match name {
        "init_module" => {
            format!(
                "loads a kernel module of {second} bytes, parameters {}",
                text(0)
            )
        }
        "finit_module" => {
            let descriptor = signed(first);
            let parameters = text(0);
            format!(
                "loads a kernel module: descriptor {descriptor}, parameters {parameters}, flags {third:#x}"
            )
        }
        "delete_module" => format!("flags {second:#x}"),
        "kexec_load" => {
            format!("loads another kernel: entry {first:#x}, {second} segments, flags {fourth:#x}")
        }
        "kexec_file_load" => {
            let (kernel, initrd) = (signed(first), signed(second));
            let line = text(0);
            format!(
                "loads another kernel: descriptor {kernel}, initrd {initrd}, command line {line}, flags {fifth:#x}"
            )
        }
        "add_key" | "request_key" => format!("type {}, {}", text(0), text(1)),
        _ => return None,
    })
}

/// A text beside path and address.
fn said(call: &RawCall, at: usize, unread: &mut Vec<String>) -> String {
    let fetched = call.texts.get(at).and_then(Option::as_ref);
    match fetched {
        None => "none".to_owned(),
        Some(None) => {
            unread.push("detail".to_owned());
            "?".to_owned()
        }
        Some(Some(fetched)) => {
            if fetched.cut {
                unread.push("detail".to_owned());
            }
            lossy(&fetched.bytes)
        }
    }
}

/// Ids are 32 bits wide; −1 leaves one as it is.
fn signed(id: u64) -> String {
    match u32::try_from(id & 0xffff_ffff) {
        Ok(u32::MAX) | Err(_) => "-1".to_owned(),
        Ok(id) => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandtrace_event::SyscallAbi;

    #[track_caller]
    fn check(address: &[u8], expected: &str) {
        assert_eq!(socket_address(address), expected);
    }

    #[test]
    fn addresses() {
        check(&[2, 0, 1, 187, 192, 0, 2, 1, 0, 0], "192.0.2.1:443");
        check(&[2, 0, 1], "family 2");
        check(&[2, 0, 1, 187, 192], "an IPv4 address that is too short");
        let mut six = vec![10, 0, 0, 53, 0, 0, 0, 0];
        six.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        check(&six, "[2001:db8::1]:53");
        check(b"\x01\0/run/x.sock\0junk", "unix:/run/x.sock");
        check(b"\x01\0\0name\0\0", "unix:@name");
        check(b"\x10\0\0\0", "netlink");
        check(b"\x01", "an address that is too short");
    }

    fn call(number: u32, arguments: [u64; 6]) -> RawCall {
        RawCall {
            abi: SyscallAbi::Native,
            number,
            arguments,
            path: None,
            address: None,
            argv: Vec::new(),
            texts: [None, None],
        }
    }

    #[test]
    fn words_for_arguments() {
        let detail = |number, arguments| decode(1, &call(number, arguments)).unwrap().detail;
        assert_eq!(
            detail(272, [0x6002_0000, 0, 0, 0, 0, 0]).unwrap(),
            "new mount, pid, net"
        );
        assert_eq!(detail(257, [0, 0, 0o101, 0, 0, 0]).unwrap(), "for writing");
        assert_eq!(
            detail(257, [0, 0, 0o2_000_000, 0, 0, 0]).unwrap(),
            "for reading"
        );
        assert_eq!(
            detail(117, [0, 0xffff_ffff, 7, 0, 0, 0]).unwrap(),
            "ids 0, -1, 7"
        );
        let of_another = "request PTRACE_POKEDATA on process 7";
        assert_eq!(detail(101, [5, 7, 0, 0, 0, 0]).unwrap(), of_another);
        assert_eq!(
            detail(321, [5, 0, 0, 0, 0, 0]).unwrap(),
            "command BPF_PROG_LOAD"
        );
        assert_eq!(detail(321, [99, 0, 0, 0, 0, 0]).unwrap(), "command 99");
        assert!(decode(1, &call(157, [15, 0, 0, 0, 0, 0])).is_none());
    }

    proptest! {
        #[test]
        fn any_call_is_decoded(
            number in 0..500_u32,
            arguments in any::<[u64; 6]>(),
            bytes in prop::option::of(prop::collection::vec(any::<u8>(), 0..700)),
            cut in any::<bool>(),
        ) {
            let fetched = bytes.map(|bytes| Fetched { bytes, cut });
            let mut raw = call(number, arguments);
            raw.path = Some(fetched.clone());
            raw.address = Some(fetched.clone());
            raw.argv = fetched.into_iter().collect();
            if let Some(call) = decode(1, &raw) {
                prop_assert!(call.path.is_none_or(|path| path.len() <= 3 * MAX_TEXT));
            }
        }
    }
}
