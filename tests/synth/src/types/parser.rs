//! Reads the tables of types. They are part of the tests, so a mistake in one panics with its line.

use super::{Aggregate, Member, Type, Types};

/// Adds the declarations in `text` to `types`.
pub(super) fn parse(text: &str, types: &mut Types) {
    let lines =
        text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|line| !line.is_empty());
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [kind @ ("struct" | "union"), name, size, "{"] => {
                let aggregate = aggregate(kind, size, &mut lines);
                types.aggregates.insert(format!("{kind} {name}"), aggregate);
            }
            ["enum", name, "{"] => {
                let mut values = Vec::new();
                for line in lines.by_ref().take_while(|line| *line != "}") {
                    let (name, value) =
                        line.split_once('=').unwrap_or_else(|| panic!("not an enumerator: {line}"));
                    values.push((name.trim().to_owned(), number(value) as i64));
                }
                types.enums.insert(name.to_owned(), values);
            }
            ["typedef", ..] => {
                let (name, ty) =
                    line["typedef".len()..].split_once(':').unwrap_or_else(|| panic!("no colon: {line}"));
                let ty = parse_type(ty.trim(), &mut lines);
                types.typedefs.insert(name.trim().to_owned(), ty);
            }
            _ => panic!("not a declaration: {line}"),
        }
    }
}

fn aggregate<'a>(kind: &str, size: &str, lines: &mut impl Iterator<Item = &'a str>) -> Aggregate {
    let mut members = Vec::new();
    while let Some(line) = lines.next() {
        if line == "}" {
            return Aggregate { is_union: kind == "union", size: number(size) as usize, members };
        }
        members.push(member(line, lines));
    }
    panic!("a {kind} of {size} bytes is not closed");
}

fn member<'a>(line: &str, lines: &mut impl Iterator<Item = &'a str>) -> Member {
    let (place, rest) = line.split_once(' ').unwrap_or_else(|| panic!("not a member: {line}"));
    let (name, ty) = rest.split_once(':').unwrap_or_else(|| panic!("a member without a type: {line}"));
    let (bit_offset, bits) = match place.split_once('.') {
        None => (number(place) as u32 * 8, 0),
        Some((byte, bitfield)) => {
            let (bit, bits) =
                bitfield.split_once(':').unwrap_or_else(|| panic!("a bitfield without a size: {line}"));
            (number(byte) as u32 * 8 + number(bit) as u32, number(bits) as u32)
        }
    };
    let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
    Member { name, bit_offset, bits, ty: parse_type(ty.trim(), lines) }
}

/// Returns the type that a line of C spells; no anonymous struct or union.
pub(super) fn parse_plain_type(text: &str) -> Type {
    parse_type(text, &mut std::iter::empty())
}

fn parse_type<'a>(text: &str, lines: &mut impl Iterator<Item = &'a str>) -> Type {
    if let [kind @ ("struct" | "union"), size, "{"] = text.split_whitespace().collect::<Vec<_>>()[..] {
        return Type::Anonymous(Box::new(aggregate(kind, size, lines)));
    }
    let (element, dimensions) = text.find('[').map_or((text, ""), |at| text.split_at(at));
    let mut element = element.trim();
    let mut pointers = 0;
    while let Some(pointee) = element.strip_suffix('*') {
        element = pointee.trim();
        pointers += 1;
    }
    let mut ty = match element.strip_prefix("const ") {
        Some(rest) => Type::Const(Box::new(Type::Named(rest.to_owned()))),
        None => Type::Named(element.to_owned()),
    };
    for _ in 0..pointers {
        ty = Type::Pointer(Box::new(ty));
    }
    let dimensions: Vec<u32> = dimensions
        .split(['[', ']'])
        .filter(|part| !part.is_empty())
        .map(|part| number(part) as u32)
        .collect();
    // In C the first dimension is the outermost.
    dimensions.iter().rev().fold(ty, |ty, &len| Type::Array(Box::new(ty), len))
}

fn number(text: &str) -> i128 {
    text.trim().parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}
