//! A container's environment: all of it but two variables is forgotten while it
//! is read.

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// The two variables that the runner sets. All others may be secrets and are
/// forgotten while they are read.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) sandbox: Option<String>,
    pub(super) snapshot: Option<String>,
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Variables;

        impl<'de> Visitor<'de> for Variables {
            type Value = Environment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of variables")
            }

            fn visit_unit<E>(self) -> Result<Environment, E> {
                Ok(Environment::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Environment, A::Error> {
                let mut environment = Environment::default();
                while let Some(variable) = list.next_element::<String>()? {
                    let (name, value) = variable.split_once('=').unwrap_or_default();
                    match name {
                        "DAYTONA_SANDBOX_ID" => environment.sandbox = Some(value.to_owned()),
                        "DAYTONA_SANDBOX_SNAPSHOT" => environment.snapshot = Some(value.to_owned()),
                        _ => {}
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(environment)
            }
        }
        deserializer.deserialize_any(Variables)
    }
}
