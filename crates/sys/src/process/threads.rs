//! What a process runs, and the interfaces where it runs.

use super::{Process, read};
use rustix::fs::{Dir, Mode, OFlags, openat};
use std::io;

/// Most threads whose names are looked at; a VMM's vCPUs are among its first.
const MAX_THREADS: usize = 256;

/// Most bytes of a list of interfaces that are looked at.
const MAX_INTERFACES: u64 = 256 << 10;

impl Process {
    /// The names of its threads, as they gave them to themselves: at most 256.
    /// A thread that ends meanwhile is left out.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn thread_names(&self) -> io::Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.dir, "task", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let Ok(thread) = entry.file_name().to_str() else {
                continue;
            };
            if thread.starts_with('.') {
                continue;
            }
            if let Ok(name) = read(&dir, &format!("{thread}/comm"), 64) {
                names.push(String::from_utf8_lossy(&name).trim_end().to_owned());
            }
            if names.len() == MAX_THREADS {
                break;
            }
        }
        Ok(names)
    }

    /// The names of the interfaces in its network namespace, of which those
    /// beyond some thousands are left out.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn interfaces(&self) -> io::Result<Vec<String>> {
        let bytes = read(&self.dir, "net/dev", MAX_INTERFACES)?;
        let text = String::from_utf8_lossy(&bytes);
        // Two lines of headings, which have no colon after the first word.
        let names = text.lines().filter_map(|line| line.rsplit_once(':'));
        Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::process::ProcRoot;

    #[test]
    fn threads_and_interfaces_of_this_process() {
        let (told, waits) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("fc_vcpu 0".to_owned());
        let thread = thread.spawn(move || waits.recv()).unwrap();
        let own = ProcRoot::host().process(std::process::id()).unwrap();
        // A thread names itself once it runs.
        while !own
            .thread_names()
            .unwrap()
            .contains(&"fc_vcpu 0".to_owned())
        {
            std::thread::yield_now();
        }
        assert!(own.interfaces().unwrap().contains(&"lo".to_owned()));
        drop(told);
        assert!(thread.join().unwrap().is_err());
    }
}
