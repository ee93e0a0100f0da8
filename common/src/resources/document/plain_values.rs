//! What is the same in all that reads a document through.

/// The methods of a visitor for values that are neither text nor have others in them: each is
/// worth `$outcome`.
macro_rules! visit_plain_values {
    ($self:ident => $outcome:expr) => {
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("any value")
        }

        fn visit_unit<E: Error>($self) -> Result<(), E> {
            $outcome
        }

        /// An empty document.
        fn visit_none<E: Error>($self) -> Result<(), E> {
            $outcome
        }

        fn visit_bool<E: Error>($self, _: bool) -> Result<(), E> {
            $outcome
        }

        fn visit_i64<E: Error>($self, _: i64) -> Result<(), E> {
            $outcome
        }

        fn visit_u64<E: Error>($self, _: u64) -> Result<(), E> {
            $outcome
        }

        fn visit_f64<E: Error>($self, _: f64) -> Result<(), E> {
            $outcome
        }
    };
}

pub(super) use visit_plain_values;
