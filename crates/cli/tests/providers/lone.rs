//! A conversation that says nothing more after its first packet.

use crate::fleet::Watch;
use crate::support::{config, lab, started};
use sandtrace_lab::StandInForm;
use sandtrace_sys::netns::{path_of, within};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// The page asks for 100 ms; the rest is for the trail and a busy machine.
const SOON: Duration = Duration::from_millis(600);

#[test]
fn a_lone_packet_is_on_record_while_a_response_can_matter() {
    let Some(lab) = lab("a_lone_packet_is_on_record_while_a_response_can_matter") else {
        return;
    };
    for capture in ["af-packet", "ebpf"] {
        let watch = Watch::start(&lab, &["--capture", capture]);
        let id = format!("i{}lone{}", lab.id(), capture.len());
        let mut vmm = started(&lab, &config(&lab, StandInForm::Firecracker, &id));
        watch.await_trail(&id, "network_egress");
        // Its own frames are over, and nothing is due for a while.
        std::thread::sleep(Duration::from_millis(300));
        let netns = vmm.netns().to_owned();
        ip(&netns, "addr add 198.51.100.1/30 dev tap0");
        ip(
            &netns,
            "neigh add 198.51.100.2 lladdr 02:fc:00:00:00:05 dev tap0 nud permanent",
        );
        let sent = Instant::now();
        let connecting = std::thread::spawn(move || {
            let nobody = SocketAddr::from(([198, 51, 100, 2], 4433));
            let connect = || TcpStream::connect_timeout(&nobody, Duration::from_millis(900));
            within(Some(&path_of(&netns)), connect).unwrap().is_err()
        });
        watch.await_trail(&id, "network_ingress");
        let took = sent.elapsed();
        println!("{capture}: {took:?}");
        assert!(took < SOON, "{capture}: {took:?}");
        assert!(connecting.join().unwrap(), "somebody answered");
        vmm.kill();
        watch.await_trail(&id, "trail_end");
        watch.interrupt();
    }
}

#[track_caller]
fn ip(netns: &str, arguments: &str) {
    let mut ip = Command::new("ip");
    let status = ip.args(["-n", netns]).args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip -n {netns} {arguments}");
}
