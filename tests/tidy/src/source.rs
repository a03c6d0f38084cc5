//! A Rust file as the checks see it: lines, tests cut off, functions by their layout.

/// A Rust file's text.
#[derive(Debug)]
pub struct Source<'a> {
    text: &'a str,
}

/// A function, found by the layout that rustfmt gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its first line, from 1.
    pub line: usize,
    /// Lines from its signature to its closing brace.
    pub length: usize,
}

impl<'a> Source<'a> {
    /// Looks at `text`.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// The lines before the unit tests, which stand at the end of their file.
    pub fn product(&self) -> impl Iterator<Item = &'a str> {
        self.text.lines().take_while(|line| *line != "#[cfg(test)]")
    }

    /// The lines that are neither a comment nor within one of `//`.
    pub fn code(&self) -> impl Iterator<Item = (usize, &'a str)> {
        (1..).zip(self.text.lines()).map(|(number, line)| {
            let end = line.find("//").unwrap_or(line.len());
            (number, &line[..end])
        })
    }

    /// All functions, tests too. Because rustfmt is enforced, a function ends with the first
    /// brace that stands where its first line began.
    #[must_use]
    pub fn functions(&self) -> Vec<Function> {
        let lines: Vec<&str> = self.text.lines().collect();
        let starts = lines.iter().enumerate().filter_map(|(at, line)| Some((at, name_in(line)?)));
        starts
            .map(|(at, name)| Function { name, line: at + 1, length: length_from(&lines[at..]) })
            .collect()
    }
}

/// The name of the function whose signature begins on this line.
fn name_in(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let named = words.find(|word| {
        let qualifier = ["const", "async", "unsafe", "extern", "default"].contains(word);
        !(qualifier || word.starts_with("pub") || word.starts_with('"') || *word == "crate)")
    })?;
    if named != "fn" {
        return None;
    }
    let name: String =
        words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() { None } else { Some(name) }
}

fn length_from(lines: &[&str]) -> usize {
    let first = lines[0];
    let indent = &first[..first.len() - first.trim_start().len()];
    // `fn f();` and `fn f() { .. }` end where they begin.
    if first.ends_with(';') || first.ends_with('}') {
        return 1;
    }
    let close = format!("{indent}}}");
    let declared = format!("{indent})");
    let end = lines.iter().skip(1).position(|line| {
        *line == close
            || (line.starts_with(&declared) && (line.ends_with(';') || line.ends_with("{}")))
    });
    end.map_or(1, |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str) -> Vec<(String, usize)> {
        Source::new(text).functions().into_iter().map(|f| (f.name, f.length)).collect()
    }

    #[test]
    fn a_function_is_as_long_as_its_layout() {
        let text = "fn one() {}\n\
                    pub(crate) const fn two(\n    a: u8,\n) -> u8 {\n    a\n}\n\
                    impl T {\n    pub async fn three() {\n        if x {\n        }\n    }\n}\n\
                    trait U {\n    fn four(\n        a: u8,\n    );\n    fn five();\n}\n\
                    let f = fn_pointer;\n";
        let expected = [("one", 1), ("two", 5), ("three", 4), ("four", 3), ("five", 1)];
        assert_eq!(lengths(text), expected.map(|(n, l)| (n.to_string(), l)));
    }

    #[test]
    fn product_lines_end_where_the_tests_begin() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(Source::new(text).product().count(), 1);
    }

    #[test]
    fn code_is_without_comments() {
        let text = "//! unsafe\nlet a = 1; // unsafe\n";
        let code: Vec<_> = Source::new(text).code().map(|(_, line)| line.trim()).collect();
        assert_eq!(code, ["", "let a = 1;"]);
    }
}
