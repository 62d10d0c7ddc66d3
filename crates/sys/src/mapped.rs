//! Writes to a file by a shared mapping of it, which no system call names.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Longest text that is written at once, in bytes.
const MOST: usize = 4096;

/// The beginning of a file, mapped: what is written to it is written to the file,
/// now or much later.
#[derive(Debug)]
pub struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// Maps at most 4,096 bytes of a file that is open for reading and writing,
    /// as far as it reaches. The caller sees to it that nobody makes the file
    /// shorter meanwhile: a page beyond its end kills the process that touches it.
    ///
    /// # Errors
    /// When the file cannot be mapped, or is empty.
    pub fn of(file: &File) -> io::Result<Self> {
        let reach = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let length = reach.min(MOST);
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
        Ok(Self { start, length })
    }

    /// Writes over the beginning, as far as it is mapped.
    pub fn write(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(self.length);
        // SAFETY: at least `length` bytes are mapped at `start`, within the file's
        // end, and at least as many are in `bytes`, which lies elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.cast::<u8>(), length) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that was made, which nothing refers to any more.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

/// Writes `bytes` over the beginning of a file by a mapping that is given up at
/// once; see [`Mapping::of`].
///
/// # Errors
/// As there.
pub fn write(file: &File, bytes: &[u8]) -> io::Result<()> {
    Mapping::of(file)?.write(bytes);
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
