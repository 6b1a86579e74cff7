//! INSERT, UPDATE and DELETE by seed.

use super::expressions::{Column, Generator, Scope};
use super::known;
use super::node::{Kind, Node, Type};
use super::queries::{TABLES, Table};

impl Generator {
    /// A value of a row that is there from the beginning.
    fn stored(&mut self, name: &str, of: Type) -> String {
        let small = self.random.below(6);
        if self.random.one_in(5) {
            return "NULL".to_owned();
        }
        match of {
            Type::Int => format!(
                "{}{small}",
                if name == "a" || small == 0 { "" } else { self.random.pick(&["", "", "-"]) }
            ),
            Type::Double => {
                let sign = self.random.pick(&["", "-"]);
                let sign = if small == 0 && !known::NEGATIVE_ZERO { "" } else { sign };
                format!("{sign}{small}.{}", self.random.pick(&["0", "5", "25"]))
            }
            Type::Decimal => format!(
                "{}{small}.{}",
                self.random.pick(&["", "-"]),
                self.random.pick(&["00", "50", "25", "75"])
            ),
            Type::Text => {
                self.random.pick(&["''", "'a'", "'b'", "'ab'", "'abc'", "'B'", "'日'", "'10'"]).to_owned()
            }
            Type::Bool => self.random.pick(&["TRUE", "FALSE"]).to_owned(),
            Type::Timestamp => format!(
                "'2024-0{}-{} 0{small}:{}'",
                1 + small % 3,
                self.random.pick(&["01", "28", "15"]),
                self.random.pick(&["30:00", "00:00", "59:59.5"])
            ),
            Type::Date => format!(
                "'2024-0{}-{}'",
                1 + small % 3,
                self.random.pick(&["01", "28", "15", "29"]).replace("29", "27")
            ),
        }
    }

    /// Two statements that fill a table, each with every other row.
    pub(crate) fn rows_of_table(&mut self, table: &Table) -> [String; 2] {
        let mut halves = [Vec::new(), Vec::new()];
        for number in 0..table.rows {
            let mut values = Vec::new();
            for (name, _, of) in table.columns {
                values.push(match *name {
                    "id" => (number + 1).to_string(),
                    "k" => (number / 3).to_string(),
                    "x" if !table.key.is_empty() && table.key.contains(name) => {
                        ["'a'", "'b'", "'ab'"][usize::try_from(number % 3).unwrap()].to_owned()
                    }
                    name => self.stored(name, *of),
                });
            }
            halves[usize::from(number % 2 == 1)].push(format!("({})", values.join(", ")));
        }
        halves.map(|rows| format!("INSERT INTO {} VALUES {}", columns_of(table), rows.join(", ")))
    }

    fn scope_of(alias: &str, table: &Table) -> Scope {
        let column = |name: &str, of: Type| Column { name: format!("{alias}.{name}"), of };
        let columns = table.columns.iter().map(|(name, _, of)| column(name, *of)).collect();
        Scope { columns, ..Scope::default() }
    }

    /// A statement that changes rows of one table.
    pub(crate) fn change(&mut self) -> Node {
        let table = &TABLES[self.random.at(TABLES.len())];
        match self.random.below(8) {
            0 | 1 => self.update(table),
            2 => self.update_from(table),
            3 => self.delete(table),
            4 => self.delete_using(table),
            5 => self.insert_select(table),
            _ => self.upsert(table),
        }
    }

    /// Values for one or two columns that are not of the key.
    fn assignments(&mut self, table: &Table, scope: &Scope) -> Node {
        let free: Vec<_> = table.columns.iter().filter(|(name, _, _)| !table.key.contains(name)).collect();
        let (first, second) = (self.random.at(free.len()), self.random.at(free.len()));
        let (name, _, of) = free[first];
        let value = self.value(scope, *of, 2);
        let more = if first == second {
            Node::nothing()
        } else {
            let (name, _, of) = free[second];
            Node::of(Kind::Optional, &format!(", {name} = {{}}"), [self.value(scope, *of, 1)])
        };
        Node::of(Kind::Fixed, &format!("{name} = {{}}{{}}"), [value, more])
    }

    fn update(&mut self, table: &Table) -> Node {
        let scope = Self::scope_of("t", table);
        let nodes = [self.assignments(table, &scope), self.value(&scope, Type::Bool, 2)];
        Node::of(Kind::Fixed, &format!("UPDATE {} AS t SET {{}} WHERE {{}}", table.name), nodes)
    }

    /// One whose other table has one row at most for each row, so that there is no choice.
    fn update_from(&mut self, table: &Table) -> Node {
        let wide = &TABLES[0];
        let mut scope = Self::scope_of("t", table);
        scope.columns.extend(Self::scope_of("o", wide).columns);
        let link = self.random.pick(&["a", table.columns[0].0]);
        let nodes = [self.assignments(table, &scope), self.value(&scope, Type::Bool, 1)];
        let pattern = format!(
            "UPDATE {} AS t SET {{}} FROM {} AS o WHERE o.id = t.{link} AND {{}}",
            table.name, wide.name
        );
        Node::of(Kind::Fixed, &pattern, nodes)
    }

    fn delete(&mut self, table: &Table) -> Node {
        let scope = Self::scope_of("t", table);
        let nodes = [self.value(&scope, Type::Bool, 2), self.value(&scope, Type::Bool, 1)];
        Node::of(Kind::Fixed, &format!("DELETE FROM {} AS t WHERE {{}} AND {{}}", table.name), nodes)
    }

    fn delete_using(&mut self, table: &Table) -> Node {
        let other = &TABLES[self.random.at(TABLES.len())];
        let mut scope = Self::scope_of("t", table);
        scope.columns.extend(Self::scope_of("o", other).columns);
        let nodes = [self.value(&scope, Type::Bool, 1)];
        let pattern =
            format!("DELETE FROM {} AS t USING {} AS o WHERE o.a = t.a + 2 AND {{}}", table.name, other.name);
        Node::of(Kind::Fixed, &pattern, nodes)
    }

    fn insert_select(&mut self, table: &Table) -> Node {
        let types: Vec<Type> =
            table.columns.iter().filter(|it| !table.key.contains(&it.0)).map(|it| it.2).collect();
        let key = match table.key {
            [] => "",
            ["k", "x"] => "t.k + 1, t.x, ",
            _ => "t.id + 5, ",
        };
        let scope = Self::scope_of("t", table);
        let values = types.iter().map(|of| self.value(&scope, *of, 1)).collect();
        let nodes = [Node::list(values, ", "), self.value(&scope, Type::Bool, 2)];
        let rest = if table.key.is_empty() { "" } else { " ON CONFLICT DO NOTHING" };
        let pattern = format!(
            "INSERT INTO {} SELECT {key}{{}} FROM {} AS t WHERE {{}}{rest}",
            with_key_first(table),
            table.name
        );
        Node::of(Kind::Fixed, &pattern, nodes)
    }

    fn upsert(&mut self, table: &Table) -> Node {
        let scope = Scope::default();
        let key = self.random.below(table.rows * 2).to_string();
        let mut values = Vec::new();
        for (name, _, of) in table.columns {
            values.push(match *name {
                "id" => Node::text(Kind::Fixed, &key),
                "k" => Node::text(Kind::Fixed, &(table.rows / 4).to_string()),
                "x" if table.key.contains(name) => {
                    Node::text(Kind::Fixed, self.random.pick(&["'a'", "'b'", "'z'"]))
                }
                _ => self.value(&scope, *of, 1),
            });
        }
        let values = Node::list(values, ", ");
        let rest = if table.key.is_empty() {
            Node::nothing()
        } else if self.random.one_in(4) {
            Node::text(Kind::Fixed, " ON CONFLICT DO NOTHING")
        } else {
            let mut both = Self::scope_of(table.short(), table);
            both.columns.extend(Self::scope_of("excluded", table).columns);
            let filter = Node::of(Kind::Optional, " WHERE {}", [self.value(&both, Type::Bool, 1)]);
            let pattern = format!(" ON CONFLICT ({}) DO UPDATE SET {{}}{{}}", table.key.join(", "));
            Node::of(Kind::Fixed, &pattern, [self.assignments(table, &both), filter])
        };
        Node::of(Kind::Fixed, &format!("INSERT INTO {} VALUES ({{}}){{}}", columns_of(table)), [values, rest])
    }
}

/// A table's name with its columns.
fn columns_of(table: &Table) -> String {
    let names: Vec<&str> = table.columns.iter().map(|(name, _, _)| *name).collect();
    format!("{} ({})", table.name, names.join(", "))
}

/// A table's name with its columns, those of the key first.
fn with_key_first(table: &Table) -> String {
    let others = table.columns.iter().map(|(name, _, _)| *name).filter(|name| !table.key.contains(name));
    let names: Vec<&str> = table.key.iter().copied().chain(others).collect();
    format!("{} ({})", table.name, names.join(", "))
}
