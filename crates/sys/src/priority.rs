//! Which thread the kernel runs first.

use rustix::process::{nice, setpriority_process};
use std::io;

/// Steps of nice(2) by which a thread that reads packets goes before others:
/// with it, it has about ten times their share of a processor.
const STEPS: i32 = 10;

/// Has the kernel prefer the calling thread, and it alone, to others that
/// compete for a processor: frames do not wait, records do. Threads that it
/// starts from now on inherit it.
///
/// # Errors
/// When the process has no CAP_SYS_NICE and its RLIMIT_NICE does not allow it.
pub fn prefer_this_thread() -> io::Result<()> {
    // On Linux a thread's id names the thread alone (setpriority(2), NOTES).
    let thread = Some(rustix::thread::gettid());
    let wanted = nice(0)?.saturating_sub(STEPS);
    Ok(setpriority_process(thread, wanted)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_itself_is_preferred() {
        let before = nice(0).unwrap();
        let preferred = std::thread::spawn(|| prefer_this_thread().map(|()| nice(0).unwrap()));
        match preferred.join().unwrap() {
            Ok(after) => assert_eq!(after, (before - STEPS).max(-20)),
            // A plain user's may not.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert_eq!(nice(0).unwrap(), before);
    }
}
