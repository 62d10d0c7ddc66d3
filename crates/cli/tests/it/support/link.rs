//! A tap in a namespace of its own, whose far end the test holds: the guest is the test.

use std::process::Command;

use sandtrace_lab::{Lab, LabConfig};
use sandtrace_sys::netns::{path_of, within};
use sandtrace_sys::tap::Tap;

/// Dropped, the tap goes, then the namespace.
pub(crate) struct Link {
    tap: Tap,
    pub(crate) lab: Lab,
}

impl Link {
    pub(crate) const NAME: &str = "tap-it";

    pub(crate) fn new() -> Self {
        let lab = Lab::new(&LabConfig::default()).unwrap();
        let tap = within(Some(&path_of(lab.netns())), || Tap::open(Self::NAME));
        let link = Self {
            tap: tap.unwrap().unwrap(),
            lab,
        };
        link.ip(&["link", "set", Self::NAME, "up"]);
        link
    }

    /// Arguments that watch the link.
    pub(crate) fn watch(&self, trail: &str) -> Vec<String> {
        let args = ["watch", "--sandbox-id", "box", "--trail", trail];
        let link = ["--tap", Self::NAME, "--netns", self.lab.netns()];
        args.iter()
            .chain(&link)
            .map(|&arg| arg.to_owned())
            .collect()
    }

    /// The guest sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) -> rustix::io::Result<()> {
        rustix::io::write(&self.tap, frame).map(drop)
    }

    /// Runs iproute2 in the namespace.
    pub(crate) fn ip(&self, args: &[&str]) {
        let status = Command::new("ip")
            .args(["-n", self.lab.netns()])
            .args(args)
            .status();
        assert!(status.unwrap().success(), "ip {args:?}");
    }
}
