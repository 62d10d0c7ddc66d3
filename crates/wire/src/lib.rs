//! Sans-I/O network parsing: frames, DNS, TLS hellos, HTTP heads, the flow table.
