//! What libtest and cargo say of tests that failed, kept so that it can be said again where a log ends.

use std::collections::VecDeque;

/// First and last lines that are kept of what one test printed: its panic is at one end or the other.
const SECTION_LINES: usize = 12;

/// Failed tests that are quoted; all are named.
const SECTIONS: usize = 24;

/// Reads the standard output of `cargo test`: each suite's `failures:` and what follows.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    suites: Vec<Suite>,
    reading: Reading,
    quoted: usize,
}

/// A suite, of which at least one test failed.
#[derive(Debug, Default)]
struct Suite {
    quotes: Vec<Quote>,
    names: Vec<String>,
}

#[derive(Debug, Default)]
enum Reading {
    #[default]
    Results,
    /// After a first `failures:`, what each test printed.
    Quotes(Suite),
    /// After a second, their names.
    Names(Suite),
}

/// Both ends of what a test printed.
#[derive(Debug, Default)]
struct Quote {
    first: Vec<String>,
    left_out: usize,
    last: VecDeque<String>,
}

impl Failures {
    pub(crate) fn read(&mut self, line: &str) {
        let ends = line.starts_with("test result: ");
        self.reading = match std::mem::take(&mut self.reading) {
            Reading::Results if line == "failures:" => Reading::Quotes(Suite::default()),
            Reading::Results => Reading::Results,
            Reading::Quotes(suite) if line == "failures:" => Reading::Names(suite),
            Reading::Quotes(suite) | Reading::Names(suite) if ends => {
                self.suites.push(suite);
                Reading::Results
            }
            Reading::Quotes(mut suite) => {
                if line.starts_with("---- ") && line.ends_with(" ----") {
                    self.quoted += 1;
                    suite.quotes.push(Quote::default());
                }
                let quote = suite.quotes.last_mut();
                if let Some(quote) = quote.filter(|_| self.quoted <= SECTIONS && !line.is_empty()) {
                    quote.push(line);
                }
                Reading::Quotes(suite)
            }
            Reading::Names(mut suite) => {
                let name = line.trim();
                if !name.is_empty() {
                    suite.names.push(name.to_owned());
                }
                Reading::Names(suite)
            }
        };
    }

    /// What the tests that failed said, then their names, since a log may be cut anywhere but at its end.
    pub(crate) fn report(&self, targets: &FailedTargets) -> String {
        let mut text = String::new();
        let quotes = self.suites.iter().flat_map(|suite| &suite.quotes);
        for line in quotes.flat_map(Quote::lines) {
            text += &format!("\n{line}");
        }
        // A suite that crashed says nothing of its tests: then who is whose is not known.
        let told_apart = self.suites.len() == targets.targets.len();
        for (at, suite) in self.suites.iter().enumerate() {
            let target = targets.targets.get(at).filter(|_| told_apart);
            let of = target.map_or(String::new(), |target| format!(" ({target})"));
            for name in &suite.names {
                text += &format!("\nFAILED: {name}{of}");
            }
        }
        for line in &targets.errors {
            text += &format!("\n{line}");
        }
        text
    }
}

impl Quote {
    fn push(&mut self, line: &str) {
        if self.first.len() < SECTION_LINES {
            self.first.push(line.to_owned());
            return;
        }
        if self.last.len() == SECTION_LINES {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(line.to_owned());
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let gap = (self.left_out > 0).then(|| format!("[{} lines]", self.left_out));
        let first = self.first.iter().cloned();
        first.chain(gap).chain(self.last.iter().cloned())
    }
}

/// Reads the standard error of `cargo test --no-fail-fast`: which suites failed, and how those ended that
/// crashed.
#[derive(Debug, Default)]
pub(crate) struct FailedTargets {
    /// As cargo names them, `-p PACKAGE --test NAME`.
    targets: Vec<String>,
    errors: Vec<String>,
    in_error: bool,
    /// The last that a suite wrote: who overflows the stack or aborts names the test only there.
    before: VecDeque<String>,
}

impl FailedTargets {
    pub(crate) fn read(&mut self, line: &str) {
        let begins = line.starts_with("error: ");
        // An error of cargo's goes on in these, up to the suite that it runs next.
        let goes_on = ["Caused by:", "  process ", "    `"];
        let goes_on = line.is_empty() || goes_on.iter().any(|start| line.starts_with(start));
        self.in_error = begins || (self.in_error && goes_on);
        if !self.in_error {
            let next = ["     Running ", "   Doc-tests "];
            if next.iter().any(|start| line.starts_with(start)) {
                self.before.clear();
            } else if !line.is_empty() {
                if self.before.len() == SECTION_LINES {
                    self.before.pop_front();
                }
                self.before.push_back(line.to_owned());
            }
            return;
        }
        if let Some((_, target)) = line.split_once("to rerun pass `") {
            self.targets.push(target.trim_end_matches('`').to_owned());
            self.errors.extend(self.before.drain(..));
        }
        if !line.is_empty() {
            self.errors.push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(output: &str, errors: &str) -> String {
        let (mut failures, mut targets) = (Failures::default(), FailedTargets::default());
        output.lines().for_each(|line| failures.read(line));
        errors.lines().for_each(|line| targets.read(line));
        failures.report(&targets)
    }

    const FAILED: &str = "\
running 2 tests
test b ... FAILED
test a ... FAILED

failures:

---- b stdout ----
Error: \"x\"

---- a stdout ----

thread 'a' (27449) panicked at src/lib.rs:5:43:
one

failures:
    a
    b

test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.35s
";
    const GOOD: &str = "\
running 1 test
test c ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
    const FAILED_DOC: &str = "\
test src/lib.rs - x (line 1) ... FAILED

failures:

---- src/lib.rs - x (line 1) stdout ----
Test executable failed (exit status: 101).

failures:
    src/lib.rs - x (line 1)

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.34s

all doctests ran in 1.05s; merged doctests compilation took 0.69s
";

    #[test]
    fn what_failed_is_quoted_and_then_named_with_its_suite() {
        let errors = "
     Running unittests src/lib.rs (target/debug/deps/one)
error: test failed, to rerun pass `-p one --lib`
   Doc-tests one
error: doctest failed, to rerun pass `-p one --doc`
error: 2 targets failed:
    `-p one --lib`
    `-p one --doc`";
        let expected = "
---- b stdout ----
Error: \"x\"
---- a stdout ----
thread 'a' (27449) panicked at src/lib.rs:5:43:
one
---- src/lib.rs - x (line 1) stdout ----
Test executable failed (exit status: 101).
FAILED: a (-p one --lib)
FAILED: b (-p one --lib)
FAILED: src/lib.rs - x (line 1) (-p one --doc)
error: test failed, to rerun pass `-p one --lib`
error: doctest failed, to rerun pass `-p one --doc`
error: 2 targets failed:
    `-p one --lib`
    `-p one --doc`";
        assert_eq!(
            report(&format!("{FAILED}{GOOD}{FAILED_DOC}"), errors),
            expected
        );
    }

    #[test]
    fn a_suite_that_crashes_is_not_taken_for_another() {
        let errors = "
     Running tests/s.rs (target/debug/deps/s)
no concern of anybody
     Running tests/t.rs (target/debug/deps/t)
thread 'deep' has overflowed its stack
error: test failed, to rerun pass `--test t`

Caused by:
  process didn't exit successfully: `target/debug/deps/t` (signal: 6, SIGABRT: process abort signal)
     Running unittests src/lib.rs (target/debug/deps/one)
error: test failed, to rerun pass `--lib`";
        let said = report(&format!("running 1 test\n{FAILED}"), errors);
        let expected = "one
FAILED: a
FAILED: b
thread 'deep' has overflowed its stack
error: test failed, to rerun pass `--test t`
Caused by:
  process didn't exit successfully: `target/debug/deps/t` (signal: 6, SIGABRT: process abort signal)
error: test failed, to rerun pass `--lib`";
        assert!(said.ends_with(expected), "{said}");
    }

    #[test]
    fn a_test_that_talks_without_end_is_quoted_at_its_ends() {
        let talk: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let said = report(&FAILED.replace("one\n", &talk), "");
        assert!(said.contains("\nline 9\n[978 lines]\nline 988\n"), "{said}");
        assert!(said.ends_with("\nFAILED: a\nFAILED: b"));
        assert!(said.lines().count() < 40);
    }

    #[test]
    fn of_many_failures_all_are_named_and_some_quoted() {
        let many = FAILED.repeat(SECTIONS);
        let said = report(&many, "");
        assert_eq!(said.matches("---- ").count(), SECTIONS);
        assert_eq!(said.matches("FAILED: ").count(), SECTIONS * 2);
    }

    #[test]
    fn nothing_is_said_of_what_is_good() {
        assert_eq!(report(GOOD, "     Running tests/s.rs (s)"), "");
    }
}
