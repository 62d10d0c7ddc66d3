//! What crossed the interface before anybody watched it.

use crate::frames::datagram;
use crate::tap::Ground;
use sandtrace_event::{CaptureGap, Count, GapCause, Passed, Payload};

const PEER: [u8; 4] = [198, 51, 100, 7];

/// What both captures have to say of it, once each.
#[track_caller]
fn told(watched: crate::tap::Watched) -> [(Option<Passed>, Vec<CaptureGap>); 2] {
    let told = watched.report_passed();
    let told = told.map(|(passed, seen)| {
        let gap = |payload| match payload {
            Payload::CaptureGap(gap) => gap,
            other => panic!("{other:?}"),
        };
        (passed, seen.into_iter().map(gap).collect())
    });
    watched.finish();
    told
}

#[test]
fn frames_from_before_the_capture_are_told_by_number_and_a_gap_of_their_own_sandbox() {
    let Some(mut ground) = Ground::new("before") else {
        return;
    };
    for (passed, gaps) in told(ground.watch()) {
        assert_eq!((passed, gaps.len()), (None, 0), "nothing had passed");
    }
    for _ in 0..7 {
        ground.send(&datagram(PEER, (1, 1000), &[0; 58]));
    }
    let watched = ground.watch();
    // These are in flows, and `finish` compares them with the counters.
    ground.send(&datagram(PEER, (1, 1000), &[0; 58]));
    for (passed, gaps) in told(watched) {
        let passed = passed.unwrap();
        assert_eq!(passed.interface, "tap0");
        let sent = (passed.packets_sent, passed.bytes_sent);
        assert_eq!(sent, (Count(7), Count(700)));
        assert_eq!(passed.packets_received, Count(0));
        assert!(passed.own, "the tap is gone with who holds it");
        let [gap] = &gaps[..] else { panic!("{gaps:?}") };
        assert_eq!((gap.cause, gap.count), (GapCause::BeforeCapture, Count(7)));
    }

    // A tap of a pool: what its first holder sent is not the second one's.
    ground.add_lasting_tap("pool0");
    ground.send_into(1, &datagram(PEER, (1, 1000), &[0; 58]));
    for (passed, gaps) in told(ground.watch_with("pool0", None, &Default::default())) {
        assert!(passed.unwrap().own, "made for who holds it");
        assert_eq!(gaps[0].count, Count(1));
    }
    ground.hold_again(1);
    for (passed, gaps) in told(ground.watch_with("pool0", None, &Default::default())) {
        let passed = passed.unwrap();
        assert_eq!((passed.packets_sent, passed.own), (Count(1), false));
        assert_eq!(gaps, [], "nobody can tell whose it was");
    }
}
