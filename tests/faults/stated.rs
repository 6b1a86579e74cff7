//! Answers as a file states them: rows as Python writes them, a single value, or the fact that there is an error.

use crate::postgres::Rows;

/// The rows that a text states; none where it is not written so that a program can read it.
pub(crate) fn read(text: &str) -> Option<Rows> {
    let text = text.trim();
    if ["error", "refused", "an error"].iter().any(|word| text.starts_with(word)) {
        return Some(Err(text.to_owned()));
    }
    if text == "nothing" {
        return Some(Ok(Vec::new()));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (rows, rest) = sequence(rest, ']', row)?;
        return rest.trim().is_empty().then_some(Ok(rows));
    }
    let is_number = text.parse::<f64>().is_ok();
    is_number.then(|| Ok(vec![vec![Some(text.to_owned())]]))
}

/// Values until a closing bracket, and what stands behind it.
fn sequence<T>(text: &str, close: char, read: impl Fn(&str) -> Option<(T, &str)>) -> Option<(Vec<T>, &str)> {
    let (mut found, mut rest) = (Vec::new(), text.trim_start());
    loop {
        if let Some(rest) = rest.strip_prefix(close) {
            return Some((found, rest));
        }
        let (value, behind) = read(rest)?;
        found.push(value);
        let behind = behind.trim_start();
        rest = behind.strip_prefix(',').unwrap_or(behind).trim_start();
        if rest.len() == behind.len() && !rest.starts_with(close) {
            return None;
        }
    }
}

/// A row in parentheses.
fn row(text: &str) -> Option<(Vec<Option<String>>, &str)> {
    sequence(text.strip_prefix('(')?, ')', value)
}

/// A value as PostgreSQL writes it; arrays and documents as JSON.
fn value(text: &str) -> Option<(Option<String>, &str)> {
    if text.starts_with(['\'', '"']) {
        let (value, rest) = quoted(text)?;
        return Some((Some(value), rest));
    }
    if text.starts_with(['[', '{']) {
        let (value, rest) = document(text)?;
        return Some((Some(value), rest));
    }
    let end = text.find([',', ')', ']', '}'])?;
    let (word, rest) = text.split_at(end);
    let value = match word.trim() {
        "None" => None,
        "True" => Some("t"),
        "False" => Some("f"),
        number if number.parse::<f64>().is_ok() => Some(number),
        _ => return None,
    };
    Some((value.map(str::to_owned), rest))
}

/// A text between quotes.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next()?;
    let (mut value, mut letters) = (String::new(), text.char_indices().skip(1));
    while let Some((at, letter)) = letters.next() {
        match letter {
            letter if letter == quote => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            letter => value.push(letter),
        }
    }
    None
}

/// A list or a dictionary, as JSON.
fn document(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (items, rest) = sequence(rest, ']', item)?;
        return Some((format!("[{}]", items.join(",")), rest));
    }
    if let Some(rest) = text.strip_prefix('{') {
        let (members, rest) = sequence(rest, '}', member)?;
        return Some((format!("{{{}}}", members.join(",")), rest));
    }
    item(text)
}

/// A name and a value of a dictionary.
fn member(text: &str) -> Option<(String, &str)> {
    let (name, rest) = item(text)?;
    let (value, rest) = item(rest.trim_start().strip_prefix(':')?.trim_start())?;
    Some((format!("{name}:{value}"), rest))
}

/// A value inside a list or a dictionary, as JSON.
fn item(text: &str) -> Option<(String, &str)> {
    if text.starts_with(['[', '{']) {
        return document(text);
    }
    if text.starts_with(['\'', '"']) {
        let (value, rest) = quoted(text)?;
        return Some((serde_json::Value::String(value).to_string(), rest));
    }
    let (value, rest) = value(text)?;
    let value = value.map_or("null".to_owned(), |value| match value.as_str() {
        "t" => "true".to_owned(),
        "f" => "false".to_owned(),
        _ => value,
    });
    Some((value, rest))
}

/// Checks itself.
pub(crate) fn check() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(read("[]"), Some(Ok(Vec::new())));
    let rows = vec![vec![some("1"), some("it's"), None], vec![some("t"), some("-1.5"), some("x")]];
    assert_eq!(read(r#"[(1, "it's", None), (True, -1.5, 'x')]"#), Some(Ok(rows)));
    let rows = vec![vec![some("[1,null]")], vec![some(r#"{"a":["b",true]}"#)]];
    assert_eq!(read("[([1, None],), ({'a': ['b', True]},)]"), Some(Ok(rows)));
    assert_eq!(read("1"), Some(Ok(vec![vec![some("1")]])));
    assert!(read("error: division by zero").unwrap().is_err());
    for text in ["created", "[(1,)] or the like", "[(datetime.date(2024, 1, 1),)]", "[(1 2)]", "[('a)]"] {
        assert_eq!(read(text), None, "{text}");
    }
}
