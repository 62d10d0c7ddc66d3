//! Community IDs as the specification's own baseline has them.

use crate::published::{corpus, files};
use crate::support::{frames, run};
use sandtrace_wire::{FlowConfig, Protocol};
use std::collections::BTreeSet;

#[test]
fn the_baseline_is_met_exactly() {
    let Some(folder) = corpus("the_baseline_is_met_exactly", "community-id") else {
        return;
    };
    let baseline = std::fs::read(folder.join("baseline/baseline_deflt.json")).unwrap();
    let baseline: Vec<serde_json::Value> = serde_json::from_slice(&baseline).unwrap();
    let expected: BTreeSet<String> = baseline
        .iter()
        .map(|entry| entry["communityid"].as_str().unwrap().to_owned())
        .collect();
    let mut found = BTreeSet::new();
    for path in files(&folder.join("pcaps")) {
        let (closed, _) = run(&frames(&path), FlowConfig::default());
        for flow in closed {
            let is_ip = !matches!(flow.protocol, Protocol::Arp | Protocol::Ethernet(_));
            assert_eq!(flow.community_id.is_some(), is_ip);
            found.extend(flow.community_id);
        }
    }
    assert_eq!(found, expected);
    println!("community-id: {} exact", found.len());
}
