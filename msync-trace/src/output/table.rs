//! Tables for other engines: CSV and Parquet.

use std::{
    io::{self, Write},
    sync::Arc,
};

use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::Type,
};

use super::report::cell;
use crate::schema::{Cell, Column, ColumnKind, WallTime};

/// Something that takes the rows of a table.
pub trait Rows {
    /// One row; its cells are those of the columns.
    ///
    /// # Errors
    /// If it cannot be written.
    fn row(&mut self, cells: &[Cell]) -> io::Result<()>;

    /// No more rows come.
    ///
    /// # Errors
    /// If what is left cannot be written.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// CSV (RFC 4180). Times are RFC 3339, yes and no are `true` and `false`, what is not known is empty.
pub struct CsvRows<W> {
    out: W,
    columns: &'static [Column],
}

impl<W: Write> CsvRows<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn new(columns: &'static [Column], mut out: W) -> io::Result<Self> {
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        write!(out, "{}\r\n", names.join(","))?;
        Ok(Self { out, columns })
    }
}

impl<W: Write> Rows for CsvRows<W> {
    fn row(&mut self, cells: &[Cell]) -> io::Result<()> {
        for (nth, (column, value)) in self.columns.iter().zip(cells).enumerate() {
            if nth > 0 {
                self.out.write_all(b",")?;
            }
            match (value, column.kind) {
                (Cell::Empty, _) => {}
                (Cell::Text(text), _) => self.out.write_all(cell(text).as_bytes())?,
                (Cell::Number(number), ColumnKind::Time) => {
                    write!(self.out, "{}", WallTime(*number))?;
                }
                (Cell::Number(number), ColumnKind::Bool) => write!(self.out, "{}", *number != 0)?,
                (Cell::Number(number), ColumnKind::Unsigned) => {
                    write!(self.out, "{}", number.cast_unsigned())?;
                }
                (Cell::Number(number), _) => write!(self.out, "{number}")?,
            }
        }
        self.out.write_all(b"\r\n")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}

/// So many rows are a row group: what is kept in memory, and what an engine reads at a time.
const GROUP: usize = 1 << 16;

/// Apache Parquet, compressed with Snappy. Times are in microseconds, which every engine knows.
pub struct ParquetRows<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: &'static [Column],
    /// Rows that are not written yet.
    rows: Vec<Vec<Cell>>,
}

impl<W: Write + Send> ParquetRows<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn new(columns: &'static [Column], out: W) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("msync-trace {}", env!("CARGO_PKG_VERSION")))
            .build();
        let schema = schema(columns).map_err(of_parquet)?;
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties));
        Ok(Self {
            writer: writer.map_err(of_parquet)?,
            columns,
            rows: Vec::new(),
        })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        for (nth, column) in self.columns.iter().enumerate() {
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            let cells = || rows.iter().map(|row| &row[nth]);
            let there: Vec<i16> = cells().map(|it| i16::from(*it != Cell::Empty)).collect();
            let there = Some(&there[..]);
            match column.kind {
                ColumnKind::Text => {
                    let texts: Vec<ByteArray> = cells().filter_map(text).collect();
                    writer
                        .typed::<ByteArrayType>()
                        .write_batch(&texts, there, None)?;
                }
                ColumnKind::Bool => {
                    let values: Vec<bool> = cells().filter_map(number).map(|n| n != 0).collect();
                    writer
                        .typed::<BoolType>()
                        .write_batch(&values, there, None)?;
                }
                ColumnKind::Time => {
                    let times = cells().filter_map(number).map(|ns| ns.div_euclid(1000));
                    let times: Vec<i64> = times.collect();
                    writer
                        .typed::<Int64Type>()
                        .write_batch(&times, there, None)?;
                }
                ColumnKind::Number | ColumnKind::Unsigned => {
                    let numbers: Vec<i64> = cells().filter_map(number).collect();
                    writer
                        .typed::<Int64Type>()
                        .write_batch(&numbers, there, None)?;
                }
            }
            writer.close()?;
        }
        group.close()?;
        Ok(())
    }
}

impl<W: Write + Send> Rows for ParquetRows<W> {
    fn row(&mut self, cells: &[Cell]) -> io::Result<()> {
        self.rows.push(cells.to_vec());
        match self.rows.len() {
            GROUP.. => self.write_group().map_err(of_parquet),
            _ => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.write_group().map_err(of_parquet)?;
        let mut out = self.writer.into_inner().map_err(of_parquet)?;
        out.flush()
    }
}

fn text(cell: &Cell) -> Option<ByteArray> {
    match cell {
        Cell::Text(text) => Some(ByteArray::from(text.as_str())),
        Cell::Number(number) => Some(ByteArray::from(number.to_string().as_str())),
        Cell::Empty => None,
    }
}

fn number(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Number(number) => Some(*number),
        Cell::Text(_) => Some(0),
        Cell::Empty => None,
    }
}

fn schema(columns: &[Column]) -> Result<Type, ParquetError> {
    let fields: Result<Vec<_>, ParquetError> = columns
        .iter()
        .map(|column| {
            let (physical, logical) = match column.kind {
                ColumnKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
                ColumnKind::Bool => (Physical::BOOLEAN, None),
                ColumnKind::Number => (Physical::INT64, None),
                ColumnKind::Unsigned => (Physical::INT64, Some(LogicalType::integer(64, false))),
                ColumnKind::Time => (
                    Physical::INT64,
                    Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
                ),
            };
            let field = Type::primitive_type_builder(column.name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(logical)
                .build()?;
            Ok(Arc::new(field))
        })
        .collect();
    Type::group_type_builder("msync_trace")
        .with_fields(fields?)
        .build()
}

/// What the output said, where it is the output that failed.
fn of_parquet(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(io) => *io,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}
