//! JA4 fingerprints beside those of its authors' own program, exactly.

use crate::published::{corpus, files};
use crate::support::{frames, run};
use sandtrace_wire::FlowConfig;

#[test]
fn fingerprints_are_those_of_the_corpus() {
    let Some(folder) = corpus("fingerprints_are_those_of_the_corpus", "ja4") else {
        return;
    };
    let mut count = 0;
    for path in files(&folder.join("expected/rust")) {
        let name = path.file_stem().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut expected: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("  ja4: "))
            .map(str::to_owned)
            .collect();
        let (closed, _) = run(
            &frames(&folder.join("pcap").join(name)),
            FlowConfig::default(),
        );
        let mut found: Vec<String> = closed.into_iter().filter_map(|flow| flow.ja4).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{}", path.display());
        count += found.len();
    }
    println!("ja4: {count} fingerprints exact, in all captures");
    assert!(count > 50, "{count}");
}
