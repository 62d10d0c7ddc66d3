//! A TCP stream that counts its bytes, waits only so long, and ends when the world does.

use std::io::{self, PipeReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a client may say nothing.
const IDLE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Wire<'a> {
    stream: TcpStream,
    stopped: &'a PipeReader,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl<'a> Wire<'a> {
    pub(super) fn new(stream: TcpStream, stopped: &'a PipeReader) -> io::Result<Self> {
        // A listener's connections do not inherit its non-blocking mode on Linux.
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        Ok(Self {
            stream,
            stopped,
            received: 0,
            sent: 0,
        })
    }

    fn wait_for_data(&self) -> io::Result<()> {
        let mut waiting = [
            PollFd::new(&self.stream, PollFlags::IN),
            PollFd::new(self.stopped, PollFlags::IN),
        ];
        let ready = poll(&mut waiting, Some(&IDLE))?;
        let [_, stopped] = waiting;
        if ready == 0 {
            Err(io::ErrorKind::TimedOut.into())
        } else if stopped.revents().is_empty() {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_for_data()?;
        let length = self.stream.read(buffer)?;
        self.received += length as u64;
        Ok(length)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.stream.write(bytes)?;
        self.sent += length as u64;
        Ok(length)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let length = self.stream.write_vectored(slices)?;
        self.sent += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
