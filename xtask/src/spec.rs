//! The statements of the two standards: what is obeyed, where, and what tests it.
//!
//! `specs/*.toml` has a row for each numbered statement; the code marks the places, `//= ID` above
//! what obeys it and `//= test ID` above what tests it, with `v3.1.1` before ids of that version.
//! This verb checks that rows and marks agree both ways and prints what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::metadata::Workspace;
use crate::sh::{Failure, files, read, root, write};

/// The tables: the version as marks name it, and the file.
const TABLES: &[(&str, &str)] = &[("v3.1.1", "specs/mqtt311.toml"), ("", "specs/mqtt5.toml")];

const SCOPES: &[&str] = &["wire", "client", "server"];
const LEVELS: &[&str] = &["must", "should", "may"];
const STATUSES: &[&str] = &["done", "exception", "open"];

/// One statement of one version.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Row {
    line: usize,
    fields: BTreeMap<String, String>,
}

/// Where the code marks a statement.
#[derive(Debug, Default, PartialEq, Eq)]
struct Marks {
    obeyed: Vec<String>,
    tested: Vec<String>,
}

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let (mut update, mut all) = (false, false);
    for arg in args {
        match arg.as_str() {
            "--update" => update = true,
            "--all" => all = true,
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    let mut marks = scan()?;
    let mut wrong = Vec::new();
    println!("| version | scope | statements | done | exceptions | open |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    let mut missing = Vec::new();
    for (version, file) in TABLES {
        let path = root().join(file);
        let mut text = read(&path)?;
        if update {
            let updated = updated(&text, |id| {
                marks.get(&key(version, id)).is_some_and(Marks::complete)
            });
            if updated != text {
                write(&path, &updated)?;
                text = updated;
            }
        }
        let rows = match parse(&text) {
            Ok(rows) => rows,
            Err((line, why)) => {
                wrong.push(format!("{file}:{line}: {why}"));
                continue;
            }
        };
        let mut seen = BTreeSet::new();
        for row in &rows {
            let key = key(version, row.field("id"));
            let own = marks.remove(&key).unwrap_or_default();
            if !seen.insert(key.clone()) {
                wrong.push(format!("{file}:{}: a second row for {key}", row.line));
            }
            wrong.extend(
                row.mistakes(&own)
                    .into_iter()
                    .map(|why| format!("{file}:{}: {key}: {why}", row.line)),
            );
            if row.field("status") == "open" {
                missing.push((
                    row.field("scope").to_owned(),
                    format!("{key} ({}): {}", own.lack(), row.field("says")),
                ));
            }
            if all {
                println!("{key} {} {}", row.field("status"), own.places());
            }
        }
        for scope in SCOPES {
            let scoped: Vec<&Row> = rows
                .iter()
                .filter(|row| row.field("scope") == *scope)
                .collect();
            let count = |status: &str| {
                scoped
                    .iter()
                    .filter(|row| row.field("status") == status)
                    .count()
            };
            let version = if version.is_empty() { "v5.0" } else { version };
            let (done, excepted, open) = (count("done"), count("exception"), count("open"));
            println!(
                "| {version} | {scope} | {} | {done} | {excepted} | {open} |",
                scoped.len()
            );
        }
    }
    for (key, own) in &marks {
        wrong.push(format!("{}: no table has a row for {key}", own.places()));
    }
    for scope in ["client", "wire"] {
        let of_scope: Vec<&String> = missing
            .iter()
            .filter(|(of, _)| of == scope)
            .map(|(_, what)| what)
            .collect();
        if !of_scope.is_empty() {
            println!("\nopen, {scope}:");
            of_scope.iter().for_each(|what| println!("  {what}"));
        }
    }
    let open_wire = missing.iter().filter(|(scope, _)| scope == "wire").count();
    if open_wire > 0 {
        wrong.push(format!("{open_wire} statements about the wire are open"));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(wrong.join("\n")))
    }
}

/// An id with its version, as marks write it.
fn key(version: &str, id: &str) -> String {
    format!("{version} {id}").trim().to_owned()
}

impl Row {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// What is wrong with the row itself, and with its status in the light of the marks.
    fn mistakes(&self, marks: &Marks) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |good: bool, why: &str| {
            if !good {
                wrong.push(why.to_owned());
            }
        };
        let status = self.field("status");
        check(is_id(self.field("id")), "an id looks like MQTT-1.2.3-4");
        check(
            SCOPES.contains(&self.field("scope")),
            "scope is wire, client or server",
        );
        check(
            LEVELS.contains(&self.field("level")),
            "level is must, should or may",
        );
        check(!self.field("says").is_empty(), "says is missing");
        let no_status = status.is_empty() && self.field("scope") == "server";
        check(
            no_status || STATUSES.contains(&status),
            "status is done, exception or open",
        );
        check(
            (status == "exception") == self.fields.contains_key("reason"),
            "an exception, and only that, has a reason",
        );
        if status == "done" {
            check(
                !marks.obeyed.is_empty(),
                "done, but no code is marked with it",
            );
            check(
                !marks.tested.is_empty(),
                "done, but no test is marked with it",
            );
        }
        check(
            status != "open" || !marks.complete(),
            "open, but marked and tested: `cargo xtask spec --update`",
        );
        wrong
    }
}

impl Marks {
    fn complete(&self) -> bool {
        !self.obeyed.is_empty() && !self.tested.is_empty()
    }

    fn lack(&self) -> &'static str {
        match (self.obeyed.is_empty(), self.tested.is_empty()) {
            (true, true) => "no code, no test",
            (true, false) => "no code",
            (false, true) => "no test",
            (false, false) => "complete",
        }
    }

    fn places(&self) -> String {
        self.obeyed
            .iter()
            .chain(&self.tested)
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The marks of every member, except this one, whose tests quote some.
fn scan() -> Result<BTreeMap<String, Marks>, Failure> {
    let mut marks: BTreeMap<String, Marks> = BTreeMap::new();
    let members = Workspace::load()?.members;
    let sources = members
        .iter()
        .filter(|member| member.name != env!("CARGO_PKG_NAME"));
    let sources: BTreeSet<PathBuf> = sources
        .flat_map(|member| files(&member.dir, ".rs"))
        .collect();
    for path in sources {
        let shown = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .display()
            .to_string();
        for (line, test, key) in marked(&read(&path)?) {
            let own = marks.entry(key).or_default();
            let list = if test {
                &mut own.tested
            } else {
                &mut own.obeyed
            };
            list.push(format!("{shown}:{line}"));
        }
    }
    Ok(marks)
}

/// The marks in one file: line, whether it is a test's, and the id with its version.
fn marked(text: &str) -> Vec<(usize, bool, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(mark) = line.trim_start().strip_prefix("//= ") else {
            continue;
        };
        let (test, ids) = mark
            .strip_prefix("test ")
            .map_or((false, mark), |ids| (true, ids));
        let keys = ids
            .split(',')
            .map(|id| id.split_whitespace().collect::<Vec<_>>().join(" "));
        found.extend(keys.map(|key| (number + 1, test, key)));
    }
    found
}

fn is_id(id: &str) -> bool {
    // One id of 3.1.1 is printed with a hyphen for its first dot: MQTT-3-8.3-4.
    let numbers: Vec<&str> = id
        .strip_prefix("MQTT-")
        .unwrap_or_default()
        .split(['.', '-'])
        .collect();
    let is_number =
        |number: &&str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    numbers.len() == 4 && numbers.iter().all(is_number)
}

/// Reads the corner of TOML that the tables use: `[[statement]]`, `name = "text"`, comments.
fn parse(text: &str) -> Result<Vec<Row>, (usize, String)> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[statement]]" {
            rows.push(Row {
                line: number,
                fields: BTreeMap::new(),
            });
            continue;
        }
        let pair = line.split_once(" = ");
        let value = pair.and_then(|(_, value)| value.strip_prefix('"')?.strip_suffix('"'));
        let (Some((name, _)), Some(value), Some(row)) = (pair, value, rows.last_mut()) else {
            return Err((
                number,
                "neither [[statement]] nor name = \"text\"".to_owned(),
            ));
        };
        if !["id", "scope", "level", "status", "says", "reason"].contains(&name) {
            return Err((number, format!("a statement has no {name:?}")));
        }
        let value = value.replace("\\\"", "\"").replace("\\\\", "\\");
        if row.fields.insert(name.to_owned(), value).is_some() {
            return Err((number, format!("{name} is given twice")));
        }
    }
    Ok(rows)
}

/// The table's text with `done` and `open` as the marks have it; all else stays as it is.
fn updated(text: &str, complete: impl Fn(&str) -> bool) -> String {
    let mut done = false;
    let mut new = String::with_capacity(text.len());
    for line in text.lines() {
        if let Some(id) = line
            .strip_prefix("id = \"")
            .and_then(|id| id.strip_suffix('"'))
        {
            done = complete(id);
        }
        new += match line {
            r#"status = "done""# | r#"status = "open""# if done => r#"status = "done""#,
            r#"status = "done""# => r#"status = "open""#,
            other => other,
        };
        new.push('\n');
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Comment\n[[statement]]\nid = \"MQTT-1.5.4-1\"\nscope = \"wire\"\nlevel = \"must\"\n\
                         status = \"open\"\nsays = \"A \\\"b\\\"\"\n";

    fn marks(obeyed: &[&str], tested: &[&str]) -> Marks {
        let owned = |list: &[&str]| list.iter().map(|place| (*place).to_owned()).collect();
        Marks {
            obeyed: owned(obeyed),
            tested: owned(tested),
        }
    }

    #[test]
    fn a_row_is_read() {
        let rows = parse(TABLE).expect("a table");
        assert_eq!(
            (rows.len(), rows[0].line, rows[0].field("says")),
            (1, 2, "A \"b\"")
        );
        assert_eq!(rows[0].mistakes(&Marks::default()), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_row_is_refused() {
        assert_eq!(parse("id = \"x\"").expect_err("no statement").0, 1);
        assert_eq!(parse("[[statement]]\nid = x").expect_err("no text").0, 2);
        assert_eq!(
            parse("[[statement]]\nide = \"x\"")
                .expect_err("no such field")
                .0,
            2
        );
        assert_eq!(
            parse("[[statement]]\nid = \"x\"\nid = \"y\"")
                .expect_err("twice")
                .0,
            3
        );
    }

    #[test]
    fn marks_are_found() {
        let text =
            "    //= MQTT-1.5.4-1\n//= test v3.1.1 MQTT-1.5.3-1, MQTT-1.5.4-1\n// MQTT-9.9.9-9\n";
        let expected = [
            (1, false, "MQTT-1.5.4-1".to_owned()),
            (2, true, "v3.1.1 MQTT-1.5.3-1".to_owned()),
            (2, true, "MQTT-1.5.4-1".to_owned()),
        ];
        assert_eq!(marked(text), expected);
    }

    #[test]
    fn a_done_row_needs_code_and_test() {
        let done = parse(&TABLE.replace("open", "done"))
            .expect("a table")
            .remove(0);
        assert_eq!(done.mistakes(&marks(&["a"], &["b"])).len(), 0);
        assert_eq!(done.mistakes(&marks(&["a"], &[])).len(), 1);
        assert_eq!(done.mistakes(&Marks::default()).len(), 2);
    }

    #[test]
    fn an_open_row_that_is_done_is_found() {
        let open = parse(TABLE).expect("a table").remove(0);
        assert_eq!(open.mistakes(&marks(&["a"], &["b"])).len(), 1);
    }

    #[test]
    fn an_exception_gives_its_reason() {
        let text = TABLE.replace("open", "exception");
        let row = |text: &str| parse(text).expect("a table").remove(0);
        assert_eq!(row(&text).mistakes(&Marks::default()).len(), 1);
        assert_eq!(
            row(&(text + "reason = \"r\"\n"))
                .mistakes(&Marks::default())
                .len(),
            0
        );
    }

    #[test]
    fn an_update_touches_the_status_alone() {
        assert_eq!(updated(TABLE, |_| true), TABLE.replace("open", "done"));
        assert_eq!(updated(&TABLE.replace("open", "done"), |_| false), TABLE);
        assert_eq!(
            updated(&TABLE.replace("open", "exception"), |_| true),
            TABLE.replace("open", "exception")
        );
    }

    #[test]
    fn the_tables_are_whole() {
        for ((version, file), count) in TABLES.iter().zip([141, 251]) {
            let rows = parse(&read(&root().join(file)).expect("a table")).expect("rows");
            assert_eq!(rows.len(), count, "{version}");
        }
    }
}
