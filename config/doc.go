// Package config reads, defaults and validates the settings.
//
// A configuration is TOML, read strictly: an unknown key, a value out of its
// range or two settings that contradict each other are errors that name file,
// line, column and key, as many of them at once as can be told apart.
//
// Every setting stands once, in the tables of keys*.go: its name, default,
// range and meaning. Reading, the environment variables, the output of
// "postrider check", the annotated example and docs/configuration.md all come
// from that one place. A value comes from (the later wins) its default, the
// file, the environment; Origin tells which it was.
//
// Parse is pure: text in, Config out. Load adds what needs a host: it finds
// the file, resolves paths, and looks at the key files.
//
// The package knows the shape of a value, never what a room does with it: it
// imports nothing of the project, and only package mta turns a Config into the
// options of the rooms.
package config
