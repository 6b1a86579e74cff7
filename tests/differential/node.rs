//! A statement as a tree of pieces of text, made smaller as long as it still shows something.

/// The type of a value, as far as the generator tells types apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Type {
    Int,
    Double,
    Decimal,
    Text,
    Bool,
    Timestamp,
    Date,
}

impl Type {
    pub(crate) const ALL: [Self; 7] =
        [Self::Int, Self::Double, Self::Decimal, Self::Text, Self::Bool, Self::Timestamp, Self::Date];

    /// Its name in a CAST.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::Double => "DOUBLE PRECISION",
            Self::Decimal => "DECIMAL(12,3)",
            Self::Text => "TEXT",
            Self::Bool => "BOOLEAN",
            Self::Timestamp => "TIMESTAMP",
            Self::Date => "DATE",
        }
    }

    /// The simplest value.
    fn simplest(self) -> &'static str {
        match self {
            Self::Int => "1",
            Self::Double => "CAST(1 AS DOUBLE PRECISION)",
            Self::Decimal => "1.5",
            Self::Text => "'a'",
            Self::Bool => "TRUE",
            Self::Timestamp => "TIMESTAMP '2024-01-01 00:00:00'",
            Self::Date => "DATE '2024-01-01'",
        }
    }
}

/// Replacements that the reducer may use for a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Nothing else.
    Fixed,
    /// Nothing at all.
    Optional,
    /// Any value of the type.
    Value(Type),
    /// Any query with such columns.
    Query,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Node(Node),
}

/// A part of a statement.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    kind: Kind,
    pieces: Vec<Piece>,
}

impl Node {
    /// A pattern with `{}` where the nodes stand.
    pub(crate) fn of(kind: Kind, pattern: &str, nodes: impl IntoIterator<Item = Self>) -> Self {
        let mut pieces = Vec::new();
        let mut nodes = nodes.into_iter();
        for (index, text) in pattern.split("{}").enumerate() {
            if index > 0 {
                pieces.push(Piece::Node(nodes.next().expect("a node for each place")));
            }
            pieces.push(Piece::Text(text.to_owned()));
        }
        assert!(nodes.next().is_none(), "{pattern} has fewer places than nodes");
        Self { kind, pieces }
    }

    pub(crate) fn value(of: Type, pattern: &str, nodes: impl IntoIterator<Item = Self>) -> Self {
        Self::of(Kind::Value(of), pattern, nodes)
    }

    /// No more than its text.
    pub(crate) fn text(kind: Kind, text: &str) -> Self {
        Self { kind, pieces: vec![Piece::Text(text.to_owned())] }
    }

    pub(crate) fn nothing() -> Self {
        Self::text(Kind::Fixed, "")
    }

    /// Nodes one after the other, with this between them.
    pub(crate) fn list(nodes: Vec<Self>, between: &str) -> Self {
        let pattern = vec!["{}"; nodes.len()].join(between);
        Self::of(Kind::Fixed, &pattern, nodes)
    }

    pub(crate) fn sql(&self) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Node(node) => node.sql(),
        };
        self.pieces.iter().map(text).collect()
    }

    /// Whether its last part is an order that says which row comes first.
    pub(crate) fn ends_in_order(&self) -> bool {
        let mut nodes = self.pieces.iter().rev();
        nodes
            .find_map(|piece| if let Piece::Node(node) = piece { Some(node) } else { None })
            .is_some_and(|node| node.sql().starts_with(" ORDER BY"))
    }

    /// Nodes below that could stand here instead.
    fn descendants(&self, kind: Kind, found: &mut Vec<Self>) {
        for piece in &self.pieces {
            if let Piece::Node(node) = piece {
                if node.kind == kind {
                    found.push(node.clone());
                } else {
                    node.descendants(kind, found);
                }
            }
        }
    }

    /// Returns the nodes that may replace this one, the smallest first.
    fn replacements(&self) -> Vec<Self> {
        let size = self.sql().len();
        let mut found = match self.kind {
            Kind::Fixed => return Vec::new(),
            Kind::Optional => vec![Self::text(Kind::Optional, "")],
            Kind::Value(of) => vec![Self::text(self.kind, of.simplest())],
            Kind::Query => Vec::new(),
        };
        if self.kind != Kind::Optional {
            self.descendants(self.kind, &mut found);
        }
        found.retain(|node| node.sql().len() < size);
        found
    }

    /// All trees with one node replaced, those with large nodes replaced first.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut found = self.replacements();
        for (index, piece) in self.pieces.iter().enumerate() {
            if let Piece::Node(node) = piece {
                for other in node.smaller() {
                    let mut smaller = self.clone();
                    smaller.pieces[index] = Piece::Node(other);
                    found.push(smaller);
                }
            }
        }
        found.sort_by_key(|node| node.sql().len());
        found
    }
}
