//! Prepares and checks what the lab needs from this machine: `lab setup|doctor|sweep`.

use std::io::{self, Write};
use std::process::ExitCode;

use sandtrace_lab::{Lab, detect, guest_binary, kernel, programs};

const USAGE: &str = "usage: lab setup|doctor|sweep
  setup   downloads and unpacks the microVM's kernel, once
  doctor  says what the lab can run here and what is missing
  sweep   removes what killed labs left behind";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let outcome = match command.as_deref() {
        Some("setup") => setup(),
        Some("doctor") => doctor(),
        Some("sweep") => sweep(),
        _ => {
            let _ = writeln!(io::stderr(), "{USAGE}");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setup() -> Result<(), Failure> {
    // Progress that nobody reads is no reason to stop.
    kernel::fetch(&mut |step| drop(say(step)))?;
    Ok(())
}

fn doctor() -> Result<(), Failure> {
    for program in programs::ALL {
        let found = if program.is_installed() {
            "found"
        } else {
            "missing"
        };
        say(&format!("{} ({}): {found}", program.name, program.package))?;
    }
    let (kernel, guest) = (kernel::locate(), guest_binary());
    match (&kernel, &guest) {
        (Ok(kernel), Ok(guest)) => {
            say(&format!("kernel {}", kernel.version))?;
            say(&format!("guest program {}", guest.display()))?;
            let detected = detect(kernel, guest)?;
            say(&format!(
                "microVMs run with {}: {}",
                detected.accelerator, detected.reason
            ))?;
            Ok(())
        }
        _ => Err([
            kernel.err().map(|e| e.to_string()),
            guest.err().map(|e| e.to_string()),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
        .into()),
    }
}

fn sweep() -> Result<(), Failure> {
    let removed = Lab::sweep()?;
    say(&format!("{removed} left-over labs removed"))?;
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
