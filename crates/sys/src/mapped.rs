//! Writes to a file by a shared mapping of it, which no system call names.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Longest text that is written at once, in bytes.
const MOST: usize = 4096;

/// Writes `bytes` over the beginning of a file that is open for reading and
/// writing, as far as the file reaches; at most 4,096 of them. The caller sees
/// to it that nobody makes the file shorter meanwhile: a page beyond its end
/// kills the process that touches it.
///
/// # Errors
/// When the file cannot be mapped, or is empty.
pub fn write(file: &File, bytes: &[u8]) -> io::Result<()> {
    let reach = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let length = bytes.len().min(reach).min(MOST);
    // SAFETY: a new mapping at an address that the kernel chooses; one of
    // length 0 is refused.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `length` bytes are mapped at `start`, within the file's end, and
    // at most as many are in `bytes`, which lies elsewhere.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast::<u8>(), length) };
    // SAFETY: exactly the mapping that was made above, which nothing refers to any more.
    unsafe { libc::munmap(start, length) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _, Write as _};

    #[track_caller]
    fn check(before: &[u8], after: &[u8]) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(before).unwrap();
        write(&file, b"new").unwrap();
        file.rewind().unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, after);
    }

    #[test]
    fn as_far_as_the_file_reaches() {
        check(b"a longer text", b"newonger text");
        check(b"xy", b"ne");
        let empty = tempfile::tempfile().unwrap();
        assert_eq!(
            write(&empty, b"new").unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }
}
