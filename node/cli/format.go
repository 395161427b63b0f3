package cli

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// The formats of -o. The fields of json and jsonl are the same: one document
// indented, or one line an item.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatJSONL = "jsonl"
	formatID    = "id"
)

// What a command prints where -o says nothing goes by what it answers: a table
// on a terminal, and on a pipe what the program behind it reads.
//
//	listFlag      things that have IDs: the IDs, one a line
//	linesFlag     many that have none, or have more to say: one JSON object a line
//	documentFlag  how something is: one JSON document
//
// A command that does something and tells of it in words says the same in both
// places (reportFlag), and so does one whose answer is read by programs anyway
// (outputFlag). TestFormats lists which command is which.

func listFlag() cli.Flag {
	return outputByPlace(formatID, formatTable, formatJSON, formatJSONL, formatID)
}

func linesFlag(more ...string) cli.Flag {
	return outputByPlace(formatJSONL, append([]string{formatTable, formatJSON, formatJSONL}, more...)...)
}

func documentFlag(more ...string) cli.Flag {
	return outputByPlace(formatJSON, append([]string{formatTable, formatJSON, formatJSONL}, more...)...)
}

func reportFlag() cli.Flag { return outputFlag(formatTable, formatJSON, formatJSONL) }

// outputFlag is -o with one default everywhere: the first format.
func outputFlag(formats ...string) cli.Flag {
	return &cli.GenericFlag{
		Name: "output", Aliases: []string{"o"}, Category: groupClient,
		Usage: "`FORMAT`: " + strings.Join(formats, ", "),
		Value: &choice{formats[0], formats},
	}
}

// outputByPlace is -o whose default is a table where people read and another
// format for the program behind a pipe.
func outputByPlace(pipe string, formats ...string) cli.Flag {
	return &cli.GenericFlag{
		Name: "output", Aliases: []string{"o"}, Category: groupClient,
		Usage:       "`FORMAT`: " + strings.Join(formats, ", "),
		DefaultText: "table on a terminal, else " + pipe,
		Value:       &placed{choice{of: formats}, pipe},
	}
}

// placed is a format that goes by the place, unless it was chosen.
type placed struct {
	choice
	pipe string // where there is no terminal
}

// format returns what -o says, or else what fits the place.
func format(c *cli.Context) string {
	v, ok := c.Generic("output").(*placed)
	switch {
	case !ok:
		return c.Generic("output").(*choice).value
	case v.value != "":
		return v.value
	case isTerminal(c.App.Writer):
		return formatTable
	}
	return v.pipe
}

// inWords returns what -o says, or else the words for people, whatever the place:
// for a line that monitoring systems read as it is.
func inWords(c *cli.Context) string {
	if v, ok := c.Generic("output").(*placed); ok && v.value != "" {
		return v.value
	}
	return formatTable
}
