"""The Dash app: reads the records that audits leave behind and never loads torch."""
