package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/engine"
	"github.com/sluicedata/sluice/runtime/lake"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func (a *app) sqlCommand() *cobra.Command {
	var name, data string
	cmd := &cobra.Command{
		Use: "sql", Short: "Print SQL that reads what a pipeline writes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	duckdb := &cobra.Command{
		Use: "duckdb PIPELINE.yaml", Short: "Print statements for DuckDB over the Parquet files of materialize-s3-parquet", Args: cobra.ExactArgs(1),
		Long: `Print statements for DuckDB over the Parquet files of materialize-s3-parquet: for every binding a view of all changes, a view
of every row as it is now, and a table that is kept up to date by reading new files only.

  sluice sql duckdb pipeline.yaml | duckdb shop.db
  duckdb shop.db -c 'SELECT * FROM orders'

The columns are those that the pipeline's file gives the collections, and those that sources have announced to a run of the pipeline,
as its data folder has them: print the statements again when columns were added.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := pipeline.Load(args[0], a.pipelineOptions())
			if err != nil {
				return err
			}
			if data == "" {
				data = engine.DataDir(args[0])
			}
			known, err := collection.ReadCopy(data)
			if err != nil {
				return err
			}
			return a.sql(cmd.Context(), cmd.OutOrStdout(), p, name, forgetful(known))
		},
	}
	duckdb.Flags().StringVar(&name, "materialization", "", "only this one; needed where others write to something else than Parquet files")
	duckdb.Flags().StringVar(&data, "data", "", "the data folder of the pipeline's runs (default: the pipeline's file with the extension .data)")
	cmd.AddCommand(duckdb)
	return cmd
}

func (a *app) sql(ctx context.Context, out io.Writer, p *pipeline.Pipeline, name string, store forgetful) error {
	collections, err := collection.Open(ctx, store, p.Collections)
	if err != nil {
		return err
	}
	launcher := a.launcher()
	found, owners := false, map[string]string{}
	for _, def := range p.Materializations {
		if name != "" && def.Name != name {
			continue
		}
		found = true
		task := &materialize.Task{Def: def, Launcher: &launcher, Store: store, Collections: collections, Logger: a.p.Log.WithField("task", def.Name)}
		spec, err := task.Specify(ctx)
		if err != nil {
			return err
		}
		tables, err := lake.Tables(spec)
		if err != nil {
			if name == "" && len(p.Materializations) > 1 {
				return usererr.New(err, "%s Name the one you mean with --materialization.", usererr.Message(err))
			}
			return err
		}
		for _, t := range tables {
			if err := claim(owners, def.Name, t); err != nil {
				return err
			}
			if _, err := fmt.Fprintln(out, lake.DuckDB(t)); err != nil {
				return err
			}
		}
	}
	if !found {
		return usererr.New(nil, "The pipeline has no materialization %q.", name)
	}
	return nil
}

// claim notes which materialization a table's names are of. Statements that make something of another one's name would undo that.
func claim(owners map[string]string, materialization string, t lake.Table) error {
	for _, name := range t.Names() {
		folded := strings.ToLower(name)
		if owner, taken := owners[folded]; taken && owner != materialization {
			return usererr.New(nil, "The materializations %s and %s would both make %s in DuckDB. Name the one you mean with --materialization, and give each a database of its own.", owner, materialization, name)
		}
		owners[folded] = materialization
	}
	return nil
}

// forgetful is a store of records for the time of one command.
type forgetful wal.Records

// Get implements wal.Store.
func (f forgetful) Get(name string) ([]byte, error) { return f[name], nil }

// Put implements wal.Store.
func (f forgetful) Put(_ context.Context, changes wal.Records) error {
	maps.Copy(f, changes)
	return nil
}
