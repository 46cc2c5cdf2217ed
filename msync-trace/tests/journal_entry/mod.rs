//! Entries of the journal as journald takes them apart: systemd's Native Journal Protocol.

/// Names and values, in their order.
pub type Fields = Vec<(String, Vec<u8>)>;

/// Of one entry. A field is `NAME=value`, or the name, a line feed and eight bytes of length before a value
/// that may hold anything.
pub fn fields(mut entry: &[u8]) -> Fields {
    let mut fields = Vec::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|b| b"=\n".contains(b)).unwrap();
        let name = String::from_utf8(entry[..end].to_vec()).unwrap();
        let rest = &entry[end + 1..];
        let (value, after) = match entry[end] {
            b'=' => rest.split_at(rest.iter().position(|b| *b == b'\n').unwrap()),
            _ => {
                let (len, rest) = rest.split_at(8);
                rest.split_at(u64::from_le_bytes(len.try_into().unwrap()) as usize)
            }
        };
        fields.push((name, value.to_vec()));
        entry = after.strip_prefix(b"\n").unwrap();
    }
    fields
}
