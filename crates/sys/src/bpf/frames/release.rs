//! Flows that are taken out of the table while frames come.
//!
//! A program may have found a flow and be about to count in it while it is taken
//! out. So a flow is asked first, and let go later where no frame came meanwhile
//! (`release` in frames.bpf.c).

use super::layout::{BpfFlow, BpfFlowId};
use super::{BpfTap, layout};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `BPF_PROG_TEST_RUN`.
const RUN: libc::c_int = 10;
/// Flows of one run, and their states there.
const MOST: usize = 32;
const ASKED: u8 = 1;
const LEAVES: u8 = 2;
/// An Ethernet header: what a program for frames is run with begins with one.
const HEADER: usize = 14;

/// `union bpf_attr` for `BPF_PROG_TEST_RUN` (linux/bpf.h), as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    answer: u32,
    data_size: u32,
    data_size_out: u32,
    data: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

impl BpfTap {
    /// Flows that can be asked or released at once.
    pub const MOST_RELEASED: usize = MOST;

    /// Asks flows to leave the table, up to [`Self::MOST_RELEASED`] of them. The next
    /// frame of one has it stay.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ask(&self, ids: &[BpfFlowId]) -> io::Result<()> {
        self.run(ASKED, ids).map(drop)
    }

    /// Takes those of these flows out of the table that were asked and of which no
    /// frame came since: each with its sums at the end and how many of its frames were
    /// handed over, or nothing where it stays. Not a frame is lost where every program
    /// that was on its way when they were asked has ended; they take microseconds.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(
        &self,
        ids: &[BpfFlowId],
        mut each: impl FnMut(&BpfFlowId, Option<(BpfFlow, u32)>),
    ) -> io::Result<()> {
        let leave = self.run(LEAVES, ids)?;
        for (number, id) in ids.iter().take(MOST).enumerate() {
            let leaves = leave >> number & 1 == 1;
            let taken = if leaves { self.take(id)? } else { None };
            each(id, taken);
        }
        Ok(())
    }

    /// Which of the flows leave, a bit for each.
    fn run(&self, order: u8, ids: &[BpfFlowId]) -> io::Result<u32> {
        let count = ids.len().min(MOST);
        let mut data = vec![0; HEADER];
        data.splice(..2, [order, u8::try_from(count).unwrap_or_default()]);
        data.extend(ids.iter().take(count).flatten());
        run(self.hub.release_program(), &data)
    }
}

fn run(program: BorrowedFd<'_>, data: &[u8]) -> io::Result<u32> {
    let mut run = Run {
        program: program.as_raw_fd().cast_unsigned(),
        data_size: u32::try_from(data.len()).unwrap_or_default(),
        data: u64::try_from(data.as_ptr().expose_provenance()).unwrap_or_default(),
        ..Run::default()
    };
    let size = size_of::<Run>();
    // SAFETY: the kernel reads `data_size` bytes at `data`, which outlive the call, and
    // writes `run` alone: there is no room for data to come out.
    let status = unsafe { libc::syscall(libc::SYS_bpf, RUN, &raw mut run, size) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(run.answer)
}

const _: () = assert!(HEADER + MOST * layout::KEY_BYTES < 3000, "less than a page");
