//! Tags of transformers' templates that minijinja does not have.

/// {% generation %}...{% endgeneration %} only marks text for training; `with` has its scope and whitespace rules.
pub fn replace_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let end = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(rest.len(), |i| i + 2),
            Some(b'{') => end_of_code(rest, "}}"),
            Some(b'%') => {
                let end = end_of_code(rest, "%}");
                let name_start = rest[2..end].find(|c: char| !c.is_whitespace() && c != '-' && c != '+');
                let start = 2 + name_start.unwrap_or(0);
                let name_end = rest[start..end].find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = &rest[start..start + name_end.unwrap_or(0)];
                let replacement = match name {
                    "generation" => "with",
                    "endgeneration" => "endwith",
                    "raw" => {
                        let end = end_of_raw(rest, end);
                        out.push_str(&rest[..end]);
                        rest = &rest[end..];
                        continue;
                    }
                    other => other,
                };
                out.push_str(&rest[..start]);
                out.push_str(replacement);
                rest = &rest[start + name.len()..];
                end - start - name.len()
            }
            _ => 1,
        };
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    out + rest
}

/// Length of a `{% ... %}` or `{{ ... }}` whose closing marker is not inside a string.
fn end_of_code(code: &str, close: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in code.char_indices().skip(2) {
        match quote {
            Some(q) => {
                if !escaped && c == q {
                    quote = None;
                }
                escaped = !escaped && c == '\\';
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            None if code[i..].starts_with(close) => return i + 2,
            None => {}
        }
    }
    code.len()
}

fn end_of_raw(code: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(i) = code[at..].find("{%") {
        at += i + 2;
        let name = code[at..].trim_start_matches(['-', '+']).trim_start();
        if name.starts_with("endraw") {
            return at + code[at..].find("%}").map_or(0, |i| i + 2);
        }
    }
    code.len()
}
