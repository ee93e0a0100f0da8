// Checks a dashboard against Grafana's own schema: that every field is known and of its type, none
// is missing, and every query is one of Prometheus.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// What the schema of a dashboard does not look into.
type panels struct {
	Panels []struct {
		Title       string
		Targets     []json.RawMessage
		FieldConfig struct{ Defaults json.RawMessage }
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "name one dashboard's file")
		os.Exit(2)
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "%s is not what Grafana reads: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func check(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var read dashboard.Dashboard
	var parts panels
	wrong := []error{fault(read.UnmarshalJSONStrict(text)), fault(read.Validate()), json.Unmarshal(text, &parts)}
	for _, panel := range parts.Panels {
		for _, target := range panel.Targets {
			var query prometheus.Dataquery
			wrong = append(wrong, in(panel.Title, query.UnmarshalJSONStrict(target)))
			if query.Expr == "" {
				wrong = append(wrong, fmt.Errorf("%s: a query without expr", panel.Title))
			}
		}
		var defaults dashboard.FieldConfig
		wrong = append(wrong, in(panel.Title, defaults.UnmarshalJSONStrict(panel.FieldConfig.Defaults)))
	}
	return errors.Join(wrong...)
}

func in(panel string, err error) error {
	if err = fault(err); err != nil {
		return fmt.Errorf("%s: %w", panel, err)
	}
	return nil
}

// An error of the library's may say nothing: its list of errors is empty.
func fault(err error) error {
	if err == nil || err.Error() == "" {
		return nil
	}
	return err
}
