//! Reading another process' memory (process_vm_readv(2)).

/// Bytes of a page: a read that crosses into an unmapped page is cut there.
const PAGE: u64 = 4096;

/// Reads up to `most` bytes at `address` of the process that `tid` belongs
/// to; fewer where memory ends, none where nothing can be read.
#[must_use]
pub fn read_memory(tid: u32, address: u64, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut address = address;
    while bytes.len() < most {
        let to_page_end = usize::try_from(PAGE - address % PAGE).unwrap_or(1);
        let chunk = read_once(tid, address, to_page_end.min(most - bytes.len()));
        if chunk.is_empty() {
            break;
        }
        let read = u64::try_from(chunk.len()).unwrap_or_default();
        bytes.extend(chunk);
        let Some(next) = address.checked_add(read) else {
            break;
        };
        address = next;
    }
    bytes
}

fn read_once(tid: u32, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; length];
    let (Ok(pid), Ok(base)) = (i32::try_from(tid), usize::try_from(address)) else {
        return Vec::new();
    };
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: length,
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(base),
        iov_len: length,
    };
    // SAFETY: the kernel writes at most `length` bytes behind `local`, which
    // is the vector's length; `remote` is an address in another process, that
    // the kernel checks.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    bytes.truncate(usize::try_from(read).unwrap_or_default());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_read_and_nothing_beyond_it() {
        let text = b"some text";
        let address = u64::try_from(text.as_ptr().addr()).unwrap();
        assert_eq!(read_memory(std::process::id(), address, text.len()), text);
        assert_eq!(read_memory(std::process::id(), 0, 10), b"");
        assert_eq!(read_memory(std::process::id(), u64::MAX - 2, 10), b"");
        assert_eq!(read_memory(u32::MAX, address, 1), b"");
    }
}
